//! Work beside the measuring thread: a thread with a runtime of its own, ended with the value.

use std::thread::JoinHandle;

use anyhow::Context;
use tokio::sync::watch;

/// Says true when the work is to end.
pub type Stop = watch::Receiver<bool>;

/// Dropped, it asks the work to end and waits for that.
pub struct Side<T> {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<anyhow::Result<T>>>,
}

impl<T: Send + 'static> Side<T> {
    pub fn start<F>(runtime: tokio::runtime::Runtime, work: impl FnOnce(Stop) -> F + Send + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let (stop, stops) = watch::channel(false);
        let thread = std::thread::spawn(move || runtime.block_on(work(stops)));
        Side {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends the work; what came of it.
    pub fn finish(mut self) -> anyhow::Result<T> {
        let _ = self.stop.send(true);
        let thread = self.thread.take().context("it was ended before")?;
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("the work beside broke off"))?
    }
}

impl<T> Drop for Side<T> {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
