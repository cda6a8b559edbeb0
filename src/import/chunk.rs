//! Typed rows to Postgres's binary COPY format, a chunk at a time.
//!
//! A chunk is sorted by key and holds each key once, with the last row given for it. Duplicates in a file
//! then rarely reach Postgres, and its index is filled in order, a page at a time, where rows in no order
//! touch a page each (measured on 1.85 million rows: 8.6 to 10.3 s, without sorting 15.9 s).

use bytes::{BufMut, Bytes, BytesMut};

use super::row::{ActivityRow, ClosureRow, HoursRow, TimezoneRow};
use crate::time::Timestamp;

/// Most rows of a chunk. About 8 MB of activity; three or four chunks exist at a time.
pub(super) const CHUNK_ROWS_MAX: usize = 100_000;
/// Most bytes of a chunk before the row that fills it: ids of the longest kind must not grow it further.
const CHUNK_BYTES_MAX: usize = 16 << 20;

/// Rows in binary COPY format, with header and trailer.
pub(super) struct Chunk {
    pub(super) copy: Bytes,
    /// Rows in `copy`, after duplicates were dropped.
    pub(super) rows: u64,
}

/// Gathers encoded rows; reused from chunk to chunk.
#[derive(Default)]
pub(super) struct ChunkBuilder {
    encoded: Vec<u8>,
    rows: Vec<RowAt>,
}

/// Where an encoded row lies. Its key comes first in it.
#[derive(Clone, Copy)]
struct RowAt {
    /// The first bytes of the store id: settles most comparisons without a look at the row.
    prefix: u64,
    start: u32,
    key_end: u32,
    end: u32,
}

impl ChunkBuilder {
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= CHUNK_ROWS_MAX || self.encoded.len() >= CHUNK_BYTES_MAX
    }

    /// Columns `store_id, timestamp_utc, status`; the key is the first two.
    pub(super) fn push_activity(&mut self, row: &ActivityRow<'_>) {
        let start = self.begin(3, row.store_id);
        // Postgres counts from 2000-01-01, which is the first instant that we accept.
        self.put(&row.at.since(Timestamp::MIN).to_be_bytes());
        let key_end = self.encoded.len();
        self.put(row.status.as_str().as_bytes());
        self.end(row.store_id, start, key_end);
    }

    /// Columns `store_id, day, start_time_local, end_time_local`; the key is all of them.
    pub(super) fn push_hours(&mut self, row: &HoursRow<'_>) {
        let start = self.begin(4, row.store_id);
        self.put(&i16::from(row.day).to_be_bytes());
        self.put(&row.start_us.to_be_bytes());
        self.put(&row.end_us.to_be_bytes());
        let key_end = self.encoded.len();
        self.end(row.store_id, start, key_end);
    }

    /// Columns `store_id, closed_from, closed_to, reason`; the key is the first three.
    pub(super) fn push_closure(&mut self, row: &ClosureRow<'_>) {
        let start = self.begin(4, row.store_id);
        // Postgres counts from 2000-01-01 here too, of the same clock.
        self.put(&(row.from_us - Timestamp::MIN.micros()).to_be_bytes());
        self.put(&(row.to_us - Timestamp::MIN.micros()).to_be_bytes());
        let key_end = self.encoded.len();
        self.put(row.reason.as_bytes());
        self.end(row.store_id, start, key_end);
    }

    /// Columns `store_id, timezone_str`; the key is the first.
    pub(super) fn push_timezone(&mut self, row: &TimezoneRow<'_>) {
        let start = self.begin(2, row.store_id);
        let key_end = self.encoded.len();
        self.put(row.zone.name().as_bytes());
        self.end(row.store_id, start, key_end);
    }

    /// The rows so far as a chunk; the builder is empty afterwards.
    pub(super) fn take(&mut self) -> Chunk {
        let encoded = &self.encoded;
        let key = |row: &RowAt| slice(encoded, row.start, row.key_end);
        // By place at last, so that of equal keys the last one given stands last.
        self.rows.sort_unstable_by(|a, b| {
            a.prefix
                .cmp(&b.prefix)
                .then_with(|| key(a).cmp(key(b)))
                .then(a.start.cmp(&b.start))
        });
        let mut copy = BytesMut::with_capacity(encoded.len() + 32);
        copy.put_slice(b"PGCOPY\n\xff\r\n\0");
        copy.put_u64(0); // no flags, no header extension
        let mut rows = 0;
        let mut following = self.rows.iter().skip(1);
        for row in &self.rows {
            let next = following.next();
            if next.is_none_or(|next| key(next) != key(row)) {
                copy.put_slice(slice(encoded, row.start, row.end));
                rows += 1;
            }
        }
        copy.put_i16(-1);
        self.rows.clear();
        self.encoded.clear();
        Chunk {
            copy: copy.freeze(),
            rows,
        }
    }

    fn begin(&mut self, columns: i16, store_id: &str) -> usize {
        let start = self.encoded.len();
        self.encoded.put_i16(columns);
        self.put(store_id.as_bytes());
        start
    }

    fn put(&mut self, value: &[u8]) {
        // A field is a checked id, a word or a number: never near the limit of i32.
        self.encoded.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.encoded.put_slice(value);
    }

    fn end(&mut self, store_id: &str, start: usize, key_end: usize) {
        let mut prefix = [0; 8];
        for (to, from) in prefix.iter_mut().zip(store_id.bytes()) {
            *to = from;
        }
        // CHUNK_BYTES_MAX keeps every place far below the limit of u32.
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        self.rows.push(RowAt {
            prefix: u64::from_be_bytes(prefix),
            start: place(start),
            key_end: place(key_end),
            end: place(self.encoded.len()),
        });
    }
}

fn slice(bytes: &[u8], start: u32, end: u32) -> &[u8] {
    bytes.get(start as usize..end as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Status;

    #[test]
    fn a_chunk_is_sorted_and_the_last_of_equal_keys_wins() {
        let mut builder = ChunkBuilder::default();
        let mut push = |store_id, micros, status| {
            builder.push_activity(&ActivityRow {
                store_id,
                at: Timestamp::MIN.plus(micros),
                status,
            });
        };
        push("b", 2, Status::Active);
        push("b", 1, Status::Active);
        push("a", 7, Status::Active);
        push("b", 1, Status::Inactive);
        let chunk = builder.take();

        let mut expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        for (id, micros, word) in [(b"a", 7, "active"), (b"b", 1, "inactive"), (b"b", 2, "active")] {
            expected.extend([0, 3, 0, 0, 0, 1]);
            expected.extend(id);
            expected.extend([0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, micros]);
            expected.extend([0, 0, 0, if word == "active" { 6 } else { 8 }]);
            expected.extend(word.bytes());
        }
        expected.extend([0xff, 0xff]);
        assert_eq!(&chunk.copy[..], &expected[..]);
        assert_eq!(chunk.rows, 3);
        assert_eq!(builder.take().rows, 0, "the builder starts anew");
    }
}
