//! A server without space: on a small disk of its own, where this machine lets a test mount one.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use uptally::clock::Clock;
use uptally::time::HOUR_US;

use super::quick;
use super::support::check::{reports_are_right, verify_is_clean};
use super::support::daemon::Following;
use super::support::writers::Writers;
use super::support::{TestDatabase, seed, state_dir, within};

/// Enough for an empty server and a few segments of its log.
const DISK: &str = "size=160m,mode=0711";
/// As little log as a server may keep.
const SETTINGS: [(&str, &str); 3] = [
    ("max_wal_size", "32MB"),
    ("min_wal_size", "32MB"),
    ("deadlock_timeout", "50ms"),
];

/// A file system in memory; gone with the value.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// None where that is not allowed.
    fn mount(at: &'a Path) -> Option<Self> {
        if !cfg!(target_os = "linux") || !rustix::process::geteuid().is_root() {
            return None;
        }
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", DISK, "tmpfs"])
            .arg(at)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(SmallDisk(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Lazily: the server's guard may still have its log open.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Writes until nothing more fits.
fn fill(path: &Path) -> u64 {
    let (mut file, piece, mut written) = (File::create(path).unwrap(), vec![b'x'; 64 << 10], 0);
    while file.write_all(&piece).is_ok() {
        written += piece.len() as u64;
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_space_is_waited_out() {
    let dir = state_dir();
    let Some(_disk) = SmallDisk::mount(dir.path()) else {
        println!("skipped: no file system can be mounted here");
        return;
    };
    let server = TestDatabase::start_alone_in(dir.path(), &SETTINGS).await;
    let (seed, end) = (seed(), Clock::System.now());
    let mut daemon = Following::start(&server.database(), &Clock::System, quick()).await;
    let writers = Writers::start_wild(server.connection(), 4, seed, end);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let filler = dir.path().join("filler");
    println!("{} bytes filled", fill(&filler));
    // Until the server has hit the end of the disk: a table or its log cannot grow.
    let client = server.connect().await;
    let bulk = "CREATE TABLE IF NOT EXISTS public.bulk (t text); INSERT INTO public.bulk SELECT repeat('x', 1000) FROM generate_series(1, 30000)";
    let refused = client.batch_execute(bulk).await.unwrap_err();
    println!("the server says: {refused:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let freed = Instant::now();
    std::fs::remove_file(&filler).unwrap();
    within(
        Duration::from_secs(20),
        "the server and the daemon are back",
        async || server.answers().await && daemon.handle.following().await,
    )
    .await;
    println!("following {:?} after there was space again", freed.elapsed());
    writers.stop().await;
    within(Duration::from_secs(20), "it follows", async || {
        daemon.handle.status().following.is_ok()
    })
    .await;
    let client = server.connect().await;
    reports_are_right(&daemon.handle, &client, Clock::System.now(), end.plus(-HOUR_US)).await;
    daemon.stop().await;
    verify_is_clean(&server.database(), Clock::System.now()).await;
}
