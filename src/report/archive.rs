//! The archive: one CSV file for each complete report, in a directory or an object store.
//!
//! A file is whole or not there. What a report *is* (its state, its size) is in the table
//! `reports`; the archive knows bytes only.

use std::error::Error as StdError;
use std::fs::File;
use std::io::{SeekFrom, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use url::Url;
use uuid::Uuid;

use super::bucket::BucketError;
use super::{Csv, Format};
use crate::failpoint;

/// Bytes read from a local file at a time: a report of 13,559 stores is four reads, and a slow
/// client of a large report holds one such piece in memory.
const READ_BYTES: usize = 256 << 10;

/// Where the CSV files are. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Archive {
    files: Arc<dyn ObjectStore>,
    /// Path inside the object store under which the files are.
    prefix: Path,
    /// The directory, if that is what it is.
    dir: Option<PathBuf>,
}

/// A report's file, opened: what is streamed is what was measured.
pub struct StoredReport {
    /// Length of the file.
    pub csv_bytes: u64,
    /// The file, piece by piece.
    pub stream: BoxStream<'static, Result<Bytes, ArchiveError>>,
}

/// A CSV that is in memory still.
impl From<Csv> for StoredReport {
    fn from(csv: Csv) -> Self {
        StoredReport {
            csv_bytes: csv.bytes(),
            stream: stream::iter(csv.into_iter().map(Ok)).boxed(),
        }
    }
}

/// Why the archive could not be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A location of a kind that is not known; holds the scheme of the URL.
    #[error("expected a directory or a URL with s3://, gs://, az:// or file:// for reports, found scheme {0:?}")]
    Scheme(String),
    /// A `file://` URL that is not a path on this machine.
    #[error("expected a file URL such as file:///var/lib/uptally/csvs")]
    FileUrl,
    /// The location needs a part that was left out of this build; holds the Cargo feature.
    #[error("reports in a bucket of this kind need a build with the Cargo feature {0:?}")]
    Feature(&'static str),
    /// The URL, or what the environment says of the bucket, cannot be used.
    #[error("the bucket for reports cannot be used")]
    BucketSettings(#[source] BucketError),
    /// The bucket refused or failed.
    #[error(transparent)]
    Bucket(BucketError),
    /// The directory cannot be used.
    #[error("expected a directory for reports that can be created and written")]
    Directory(#[source] std::io::Error),
    /// The file system refused or failed.
    #[error("the report archive failed")]
    Files(#[from] object_store::Error),
    /// A local file could not be written.
    #[error("a report file could not be written")]
    Write(#[source] std::io::Error),
    /// A local file could not be brought to the disk.
    #[error("a report file could not be synced")]
    Sync(#[source] std::io::Error),
    /// A local file failed while it was read.
    #[error("a report file could not be read")]
    Read(#[source] std::io::Error),
}

impl ArchiveError {
    /// The reason in words that may be shown to anybody: what the operating system said, without
    /// paths, bucket names or requests. The whole chain belongs in the log.
    pub fn public_reason(&self) -> String {
        if let ArchiveError::Bucket(error) = self {
            return format!("the report archive failed: {}", error.kind());
        }
        let mut cause: Option<&(dyn StdError + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return format!("the report archive failed: {}", io.kind());
            }
            cause = error.source();
        }
        "the report archive failed".to_owned()
    }
}

impl Archive {
    /// Opens the archive at `location`: a directory (made if it is missing) or a URL. Removes what
    /// writes that were killed half-way have left in a directory.
    ///
    /// `s3://bucket/prefix`, `gs://bucket/prefix` and `az://container/prefix` take credentials, region and endpoint from the
    /// usual variables: `AWS_*`, `GOOGLE_*`, `AZURE_*`. Nothing is asked of the store here: a bucket that is away is a
    /// report that fails, not a start that does.
    pub fn open(location: &str) -> Result<Self, ArchiveError> {
        match Url::parse(location) {
            Ok(url) if url.scheme() == "file" => {
                let dir = url.to_file_path().map_err(|()| ArchiveError::FileUrl)?;
                Archive::open_dir(&dir)
            }
            Ok(url) if location.contains("://") => Archive::open_url(&url),
            _ => Archive::open_dir(FsPath::new(location)),
        }
    }

    fn open_dir(dir: &FsPath) -> Result<Self, ArchiveError> {
        std::fs::create_dir_all(dir).map_err(ArchiveError::Directory)?;
        for leftover in leftovers(dir).map_err(ArchiveError::Directory)? {
            tracing::info!(file = %leftover.display(), "removing an unfinished report file");
            std::fs::remove_file(&leftover).map_err(ArchiveError::Directory)?;
        }
        let dir = dir.canonicalize().map_err(ArchiveError::Directory)?;
        Ok(Archive {
            files: Arc::new(LocalFileSystem::new_with_prefix(&dir)?),
            prefix: Path::default(),
            dir: Some(dir),
        })
    }

    fn open_url(url: &Url) -> Result<Self, ArchiveError> {
        let (files, prefix) = super::bucket::open(url)?;
        Ok(Archive {
            files,
            prefix,
            dir: None,
        })
    }

    /// What went wrong with a file. Of an object store's errors nothing is kept that may hold a key.
    fn failed(&self, error: object_store::Error) -> ArchiveError {
        match self.dir {
            Some(_) => ArchiveError::Files(error),
            None => ArchiveError::Bucket(BucketError::from(error)),
        }
    }

    /// Writes a report's file, whole or not at all; replaces an earlier one. In a directory that is
    /// a write to a second name and a rename; what a power cut leaves of it is decided by
    /// [`Archive::persist`].
    pub async fn put(&self, report_id: Uuid, format: Format, csv: Csv) -> Result<(), ArchiveError> {
        let Some(dir) = self.dir.clone() else {
            let payload: PutPayload = csv.into_iter().collect();
            let put = self.files.put(&self.path(report_id, format), payload).await;
            return put.map(drop).map_err(|error| self.failed(error));
        };
        let write = move || put_file(&dir, &file_name(report_id, format), &csv);
        let written = tokio::task::spawn_blocking(write).await;
        written
            .unwrap_or_else(|stopped| Err(stopped.into()))
            .map_err(ArchiveError::Write)
    }

    /// Returns once a report's file outlives a power cut. An object store's put has seen to that;
    /// in a directory it takes two fsyncs, a millisecond or more. That is why it is not part of
    /// [`Archive::put`]: the file can be read meanwhile.
    pub async fn persist(&self, report_id: Uuid, format: Format) -> Result<(), ArchiveError> {
        let Some(dir) = self.dir.clone() else {
            return Ok(());
        };
        let sync = move || {
            File::open(dir.join(file_name(report_id, format)))?.sync_all()?;
            File::open(dir)?.sync_all()?;
            failpoint::hit("report.synced").map_err(std::io::Error::other)
        };
        let synced = tokio::task::spawn_blocking(sync).await;
        synced
            .unwrap_or_else(|stopped| Err(stopped.into()))
            .map_err(ArchiveError::Sync)
    }

    /// Opens a report's file; `None` if there is none. `part`: only these bytes of it, which must be there.
    pub async fn get(
        &self,
        report_id: Uuid,
        format: Format,
        part: Option<Range<u64>>,
    ) -> Result<Option<StoredReport>, ArchiveError> {
        let options = GetOptions {
            range: part.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let found = match self.files.get_opts(&self.path(report_id, format), options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        let (csv_bytes, range) = (found.meta.size, found.range);
        let stream = match found.payload {
            GetResultPayload::File(file, _) => read_file(tokio::fs::File::from_std(file), range),
            GetResultPayload::Stream(stream) => {
                let archive = self.clone();
                stream.map_err(move |error| archive.failed(error)).boxed()
            }
        };
        Ok(Some(StoredReport { csv_bytes, stream }))
    }

    /// The length of a report's file; `None` if there is none.
    pub async fn length(&self, report_id: Uuid, format: Format) -> Result<Option<u64>, ArchiveError> {
        match self.files.head(&self.path(report_id, format)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Removes a report's file, if it is there.
    pub async fn remove(&self, report_id: Uuid, format: Format) -> Result<(), ArchiveError> {
        match self.files.delete(&self.path(report_id, format)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn path(&self, report_id: Uuid, format: Format) -> Path {
        self.prefix.clone().join(file_name(report_id, format))
    }
}

fn file_name(report_id: Uuid, format: Format) -> String {
    format!("{report_id}.{}", format.as_str())
}

/// Writes a local file under a second name and renames it. Nothing is left behind if that fails.
fn put_file(dir: &FsPath, name: &str, csv: &Csv) -> std::io::Result<()> {
    // Each report is written by one task, so one second name is enough.
    let second = dir.join(format!("{name}#1"));
    let written = write_making_dir(dir, &second, csv)
        .and_then(|()| failpoint::hit("report.file_written").map_err(std::io::Error::other))
        .and_then(|()| std::fs::rename(&second, dir.join(name)));
    if written.is_err() {
        // It may not even be there; the first error is the one to tell.
        let _ = std::fs::remove_file(&second);
    }
    written
}

/// A directory that somebody removed while we ran is made again.
fn write_making_dir(dir: &FsPath, file: &FsPath, csv: &Csv) -> std::io::Result<()> {
    let mut file = match File::create(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(dir)?;
            File::create(file)?
        }
        created => created?,
    };
    csv.pieces().iter().try_for_each(|piece| file.write_all(piece))
}

/// A part of a local file in pieces of [`READ_BYTES`]. (The object store's own stream reads 8 KiB at a time,
/// each on another thread: a hundred hops for a usual report.)
fn read_file(file: tokio::fs::File, part: Range<u64>) -> BoxStream<'static, Result<Bytes, ArchiveError>> {
    let length = part.end.saturating_sub(part.start);
    let opened = async move {
        let mut file = file;
        if part.start > 0 {
            file.seek(SeekFrom::Start(part.start))
                .await
                .map_err(ArchiveError::Read)?;
        }
        let pieces = stream::try_unfold(file.take(length), |mut file| async move {
            let mut piece = BytesMut::with_capacity(READ_BYTES);
            match file.read_buf(&mut piece).await {
                Ok(0) => Ok(None),
                Ok(_) => Ok(Some((piece.freeze(), file))),
                Err(error) => Err(ArchiveError::Read(error)),
            }
        });
        Ok::<_, ArchiveError>(pieces)
    };
    stream::once(opened).try_flatten().boxed()
}

/// Files named `<uuid>.<format>#<number>`: the second names of puts that never came to their rename.
fn leftovers(dir: &FsPath) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let unfinished = name.to_str().and_then(|name| {
            let (file, number) = name.split_once('#')?;
            let (stem, format) = file.split_once('.')?;
            Uuid::try_parse(stem).ok()?;
            format.parse::<Format>().ok()?;
            number.parse::<u64>().ok()
        });
        if unfinished.is_some() {
            found.push(dir.join(name));
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    async fn read(archive: &Archive, id: Uuid) -> Option<Vec<u8>> {
        let stored = archive.get(id, Format::Csv, None).await.unwrap()?;
        let pieces: Vec<Bytes> = stored.stream.try_collect().await.unwrap();
        let all = pieces.concat();
        assert_eq!(all.len() as u64, stored.csv_bytes);
        Some(all)
    }

    #[tokio::test]
    async fn what_was_put_is_read_back_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::open(dir.path().join("a/b").to_str().unwrap()).unwrap();
        let id = Uuid::new_v4();
        assert_eq!(read(&archive, id).await, None);
        let long: Vec<u8> = (0..3 * READ_BYTES + 7)
            .map(|place| u8::try_from(place % 251).unwrap())
            .collect();
        archive.put(id, Format::Csv, long.clone().into()).await.unwrap();
        archive.persist(id, Format::Csv).await.unwrap();
        assert_eq!(read(&archive, id).await, Some(long.clone()));
        let last = long.len() as u64;
        for part in [0..1, 5..READ_BYTES as u64 + 9, last - 3..last] {
            let stored = archive.get(id, Format::Csv, Some(part.clone())).await.unwrap().unwrap();
            assert_eq!(stored.csv_bytes, last, "of the whole file");
            let pieces: Vec<Bytes> = stored.stream.try_collect().await.unwrap();
            let (start, end) = (usize::try_from(part.start).unwrap(), usize::try_from(part.end).unwrap());
            assert!(pieces.concat() == long[start..end], "{part:?}");
        }
        archive.put(id, Format::Csv, b"short".to_vec().into()).await.unwrap();
        assert_eq!(read(&archive, id).await, Some(b"short".to_vec()));
        let names: Vec<_> = std::fs::read_dir(dir.path().join("a/b")).unwrap().collect();
        assert_eq!(names.len(), 1);
        let missing = archive.persist(Uuid::new_v4(), Format::Csv).await.unwrap_err();
        assert!(matches!(missing, ArchiveError::Sync(_)));
    }

    #[test]
    fn opening_removes_unfinished_files_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let id = Uuid::new_v4();
        let keep = [format!("{id}.csv"), "notes.csv#1".to_owned(), format!("{id}.csv#x")];
        let drop = [format!("{id}.csv#1"), format!("{id}.json#12")];
        for name in keep.iter().chain(&drop) {
            std::fs::write(dir.path().join(name), "half").unwrap();
        }
        let url = Url::from_directory_path(dir.path()).unwrap();
        Archive::open(url.as_str()).unwrap();
        for name in &keep {
            assert!(dir.path().join(name).exists(), "{name}");
        }
        for name in &drop {
            assert!(!dir.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn a_location_that_cannot_work_is_refused_with_the_reason() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = |location: &str| Archive::open(location).unwrap_err();
        assert!(matches!(
            open(file.path().to_str().unwrap()),
            ArchiveError::Directory(_)
        ));
        assert!(matches!(open("ftp://host/dir"), ArchiveError::Scheme(s) if s == "ftp"));
        assert!(matches!(open("file://host/dir"), ArchiveError::FileUrl));
        for (url, feature, is_there) in [
            ("s3://bucket/reports", "s3", cfg!(feature = "s3")),
            ("gs://bucket/reports", "gcs", cfg!(feature = "gcs")),
            ("az://bucket/reports", "azure", cfg!(feature = "azure")),
        ] {
            if !is_there {
                let text = open(url).to_string();
                assert!(text.contains(&format!("feature {feature:?}")), "{text}");
            }
        }
    }

    #[tokio::test]
    async fn a_public_reason_has_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("csvs");
        let archive = Archive::open(at.to_str().unwrap()).unwrap();
        std::fs::remove_dir(&at).unwrap();
        std::fs::write(&at, "a file now").unwrap();
        let error = archive
            .put(Uuid::new_v4(), Format::Csv, Csv::default())
            .await
            .unwrap_err();
        let reason = error.public_reason();
        assert!(reason.contains("not a directory"), "{reason}");
        assert!(!reason.contains('/'), "{reason}");
    }
}
