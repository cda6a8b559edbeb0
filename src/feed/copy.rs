//! Reading rows by `COPY … TO STDOUT (FORMAT binary)`: the fastest way to read a whole table.
//!
//! The format: a signature of 11 bytes, 4 of flags, a header extension by length; then of each row the number of
//! fields (16 bits) and every field by length (32 bits, -1 for null); a number of fields of -1 ends the data.
//! Source: the Postgres manual, page of COPY, "Binary Format".

use bytes::{Buf, Bytes, BytesMut};

use crate::rollup::Observation;
use crate::store::Status;
use crate::time::Timestamp;

/// Signature, flags, length of the header extension.
const HEADER_BYTES: usize = 19;

/// The data are not what the query promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Splits the stream into rows of `(store_id text, timestamp_utc timestamptz, inactive bool)`.
#[derive(Debug, Default)]
pub(super) struct RowSplitter {
    /// The part of a row that came with the last message.
    rest: BytesMut,
    header_read: bool,
}

impl RowSplitter {
    /// Takes the next message and hands out the rows that it completes.
    pub fn push(&mut self, message: Bytes, mut row: impl FnMut(&str, Observation)) -> Result<(), Malformed> {
        let mut data = if self.rest.is_empty() {
            message
        } else {
            self.rest.extend_from_slice(&message);
            self.rest.split().freeze()
        };
        if !self.header_read {
            let Some(extension) = data.get(HEADER_BYTES - 4..HEADER_BYTES) else {
                self.rest.extend_from_slice(&data);
                return Ok(());
            };
            if extension != [0; 4] {
                return Err(Malformed);
            }
            data.advance(HEADER_BYTES);
            self.header_read = true;
        }
        while let Some(length) = read_row(&data, &mut row)? {
            data.advance(length);
        }
        self.rest.extend_from_slice(&data);
        Ok(())
    }
}

/// Reads one row; its length in bytes, None if it is not all there (or the data are over).
fn read_row(data: &[u8], row: &mut impl FnMut(&str, Observation)) -> Result<Option<usize>, Malformed> {
    let Some((fields, mut rest)) = data.split_first_chunk::<2>() else {
        return Ok(None);
    };
    match i16::from_be_bytes(*fields) {
        3 => {}
        -1 => return Ok(None),
        _ => return Err(Malformed),
    }
    let mut field = || -> Result<Option<&[u8]>, Malformed> {
        let Some((length, after)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        // No column of these is null.
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Malformed)?;
        let Some((value, after)) = after.split_at_checked(length) else {
            return Ok(None);
        };
        rest = after;
        Ok(Some(value))
    };
    let (Some(id), Some(at), Some(inactive)) = (field()?, field()?, field()?) else {
        return Ok(None);
    };
    let id = std::str::from_utf8(id).map_err(|_| Malformed)?;
    let at = i64::from_be_bytes(at.try_into().map_err(|_| Malformed)?);
    let status = match inactive {
        [0] => Status::Active,
        [1] => Status::Inactive,
        _ => return Err(Malformed),
    };
    // Postgres counts from 2000.
    let at = Timestamp::MIN.plus(at);
    row(id, Observation { at, status });
    Ok(Some(data.len() - rest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut data = b"PGCOPY\n\xff\r\n\0".to_vec();
        data.extend([0; 8]);
        for (id, at, inactive) in [("a", 0_i64, 0_u8), ("store-2", 1_000_000, 1)] {
            data.extend(3_i16.to_be_bytes());
            data.extend(i32::try_from(id.len()).unwrap().to_be_bytes());
            data.extend(id.as_bytes());
            data.extend(8_i32.to_be_bytes());
            data.extend(at.to_be_bytes());
            data.extend(1_i32.to_be_bytes());
            data.push(inactive);
        }
        data.extend((-1_i16).to_be_bytes());
        data
    }

    fn rows(messages: impl Iterator<Item = Vec<u8>>) -> Result<Vec<(String, Observation)>, Malformed> {
        let mut splitter = RowSplitter::default();
        let mut rows = Vec::new();
        for message in messages {
            splitter.push(message.into(), |id, observation| {
                rows.push((id.to_owned(), observation));
            })?;
        }
        Ok(rows)
    }

    #[test]
    fn rows_come_out_however_the_stream_is_cut() {
        let whole = rows(std::iter::once(sample())).unwrap();
        assert_eq!(
            whole,
            [
                (
                    "a".to_owned(),
                    Observation {
                        at: Timestamp::MIN,
                        status: Status::Active
                    }
                ),
                (
                    "store-2".to_owned(),
                    Observation {
                        at: Timestamp::MIN.plus(1_000_000),
                        status: Status::Inactive
                    }
                ),
            ]
        );
        for size in 1..sample().len() {
            assert_eq!(
                rows(sample().chunks(size).map(<[u8]>::to_vec)).unwrap(),
                whole,
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn what_is_not_the_format_is_refused() {
        for (place, byte) in [(20, 7), (21, b'\xff'), (HEADER_BYTES - 1, 1)] {
            let mut data = sample();
            data[place] = byte;
            assert_eq!(rows(std::iter::once(data)), Err(Malformed), "byte {place}");
        }
    }
}
