//! Somebody who asks for reports all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chrono::Days;
use tokio::task::JoinHandle;
use uptally::clock::Clock;

use super::serve::try_http;

/// Triggers and fetches reports all the time, whatever the daemon is up to.
pub struct Reporter {
    stop: Arc<AtomicBool>,
    fetched: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Reporter {
    pub fn start(address: &str) -> Self {
        let (stop, fetched) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stops, counts, address) = (Arc::clone(&stop), Arc::clone(&fetched), address.to_owned());
        let task = tokio::task::spawn_blocking(move || {
            let today = Clock::System.now().to_chrono().date_naive();
            let paths = [
                "/trigger_report".to_owned(),
                format!("/trigger_report?from={}&to={today}", today - Days::new(2)),
            ];
            for path in paths.iter().cycle() {
                if stops.load(Ordering::Relaxed) {
                    break;
                }
                if let Ok((202, _, body)) = try_http(&address, "POST", path) {
                    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
                    let id = body["report_id"].as_str().unwrap();
                    let path = format!("/get_report?report_id={id}");
                    for _ in 0..50 {
                        match try_http(&address, "GET", &path) {
                            Ok((202, _, _)) => std::thread::sleep(Duration::from_millis(5)),
                            Ok((200, _, _)) => {
                                counts.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                            _ => break,
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Reporter { stop, fetched, task }
    }

    /// Stops; returns how many reports it got.
    pub async fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.task).await.unwrap();
        self.fetched.load(Ordering::Relaxed)
    }
}

impl Drop for Reporter {
    /// A test that fails is not to wait for it for ever.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
