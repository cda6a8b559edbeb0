//! A file as it goes out, smaller. Each piece is encoded away from the threads that answer requests; no thread waits for the
//! client between two pieces.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::negotiate::Coding;
use crate::report::ArchiveError;

/// Fast rather than small: a report of a million stores is 54 MB, and shrinks to a sixth by either.
const GZIP_LEVEL: Compression = Compression::fast();
const ZSTD_LEVEL: i32 = 1;

/// Why a file that is being sent breaks off.
#[derive(Debug, thiserror::Error)]
pub(super) enum EncodeError {
    #[error(transparent)]
    Read(#[from] ArchiveError),
    #[error("a file could not be encoded")]
    Encode(#[from] io::Error),
}

type Pieces<E> = BoxStream<'static, Result<Bytes, E>>;

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    /// None for a file as it is.
    fn new(coding: Coding) -> io::Result<Option<Self>> {
        Ok(match coding {
            Coding::Identity => None,
            Coding::Gzip => Some(Encoder::Gzip(GzEncoder::new(Vec::new(), GZIP_LEVEL))),
            Coding::Zstd => Some(Encoder::Zstd(zstd::stream::write::Encoder::new(
                Vec::new(),
                ZSTD_LEVEL,
            )?)),
        })
    }

    /// Takes a piece in; what is encoded so far comes out.
    fn push(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        let out = match self {
            Encoder::Gzip(encoder) => {
                encoder.write_all(piece)?;
                encoder.get_mut()
            }
            Encoder::Zstd(encoder) => {
                encoder.write_all(piece)?;
                encoder.get_mut()
            }
        };
        Ok(std::mem::take(out).into())
    }

    /// The end of it.
    fn finish(self) -> io::Result<Bytes> {
        let rest = match self {
            Encoder::Gzip(encoder) => encoder.finish()?,
            Encoder::Zstd(encoder) => encoder.finish()?,
        };
        Ok(rest.into())
    }
}

/// What is left to do.
struct Work {
    pieces: Pieces<ArchiveError>,
    encoder: Encoder,
}

/// A file in a form.
pub(super) fn encoded(pieces: Pieces<ArchiveError>, coding: Coding) -> Result<Pieces<EncodeError>, EncodeError> {
    let Some(encoder) = Encoder::new(coding)? else {
        return Ok(pieces.map(|piece| Ok(piece?)).boxed());
    };
    let work = Some(Work { pieces, encoder });
    let encoded = stream::try_unfold(work, async |work| {
        let Some(mut work) = work else { return Ok(None) };
        loop {
            let piece = work.pieces.next().await.transpose()?;
            let step = move || match piece {
                Some(piece) => {
                    let out = work.encoder.push(&piece)?;
                    Ok((out, Some(work)))
                }
                None => Ok((work.encoder.finish()?, None)),
            };
            let stepped = tokio::task::spawn_blocking(step).await;
            let (out, rest): (Bytes, Option<Work>) =
                stepped.unwrap_or_else(|broke_off| Err(io::Error::other(broke_off)))?;
            match rest {
                // The encoder wants more before it has something to say.
                Some(rest) if out.is_empty() => work = rest,
                rest => return Ok(Some((out, rest))),
            }
        }
    });
    Ok(encoded.boxed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use std::io::Read;

    use futures_util::TryStreamExt;

    use super::*;

    async fn through(pieces: Vec<Vec<u8>>, coding: Coding) -> Vec<u8> {
        let pieces = stream::iter(pieces.into_iter().map(|piece| Ok(piece.into()))).boxed();
        let out: Vec<Bytes> = encoded(pieces, coding).unwrap().try_collect().await.unwrap();
        out.concat()
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_and_is_smaller() {
        let mut rng = fastrand::Rng::with_seed(5);
        for sizes in [vec![], vec![0], vec![1, 0, 300_000, 7], vec![500_000; 3]] {
            let digits = |size: usize| (0..size).map(|_| b"0123,.\n"[rng.usize(..7)]).collect();
            let pieces: Vec<Vec<u8>> = sizes.into_iter().map(digits).collect();
            let plain = pieces.concat();
            assert_eq!(through(pieces.clone(), Coding::Identity).await, plain);
            let gzip = through(pieces.clone(), Coding::Gzip).await;
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&*gzip).read_to_end(&mut back).unwrap();
            assert!(back == plain);
            let zstd = through(pieces, Coding::Zstd).await;
            assert!(zstd::stream::decode_all(&*zstd).unwrap() == plain);
            if plain.len() > 1000 {
                assert!(gzip.len() * 2 < plain.len() && zstd.len() * 2 < plain.len());
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_breaks_off() {
        let broken = stream::iter([Err(ArchiveError::FileUrl)]).boxed();
        let out: Result<Vec<Bytes>, _> = encoded(broken, Coding::Zstd).unwrap().try_collect().await;
        assert!(matches!(out, Err(EncodeError::Read(ArchiveError::FileUrl))));
    }
}
