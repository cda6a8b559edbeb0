//! A value that takes long to make, made once for all who wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Mutex;

/// Makes one value at a time. Whoever comes while one is being made waits for the next, which begins after they came: so
/// what anybody gets knows everything that was so before they asked. All who wait get the same.
#[derive(Debug)]
pub(super) struct Shared<T> {
    /// The last value and when making it began; only while somebody else waits. Held by whoever makes one.
    last: Mutex<Option<(Instant, Arc<T>)>>,
    /// Who is in [`Shared::get`].
    here: AtomicUsize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Shared {
            last: Mutex::new(None),
            here: AtomicUsize::new(0),
        }
    }
}

/// Somebody in [`Shared::get`]; the last to go lets go of the value.
struct Here<'a, T>(&'a Shared<T>);

impl<'a, T> Here<'a, T> {
    fn enter(shared: &'a Shared<T>) -> Self {
        shared.here.fetch_add(1, Ordering::SeqCst);
        Here(shared)
    }
}

impl<T> Drop for Here<'_, T> {
    fn drop(&mut self) {
        // Who comes in between finds a value that is too old for them, and lets go of it later.
        if self.0.here.fetch_sub(1, Ordering::SeqCst) == 1
            && let Ok(mut last) = self.0.last.try_lock()
        {
            *last = None;
        }
    }
}

impl<T> Shared<T> {
    /// The value as of now or later; `make` makes it.
    pub(super) async fn get<E>(&self, make: impl AsyncFnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let came = Instant::now();
        let _here = Here::enter(self);
        let mut last = self.last.lock().await;
        if let Some((began, value)) = &*last
            && *began >= came
        {
            return Ok(Arc::clone(value));
        }
        *last = None;
        let began = Instant::now();
        let value = Arc::new(make().await?);
        *last = Some((began, Arc::clone(&value)));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use std::convert::Infallible;
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn who_waits_shares_one_that_begins_after_they_came_and_nothing_is_kept() {
        let shared = Shared::default();
        let made = AtomicUsize::new(0);
        let get = async || {
            let value = shared.get(async || {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, Infallible>(made.fetch_add(1, Ordering::SeqCst))
            });
            *value.await.unwrap()
        };
        // The first makes one; the nine that come meanwhile share the second.
        let mut got = join_all((0..10).map(|_| get())).await;
        got.sort_unstable();
        assert_eq!(got, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert!(shared.last.lock().await.is_none(), "nobody waits");
        assert_eq!(get().await, 2);
        // One who goes away leaves the others what they wait for.
        let (first, second) = (get(), tokio::time::timeout(Duration::from_millis(5), get()));
        let (first, second, third) = futures_util::future::join3(first, second, get()).await;
        assert_eq!((first, second.is_err(), third), (3, true, 4));
        assert!(shared.last.lock().await.is_none());
    }

    #[tokio::test]
    async fn what_fails_is_made_again() {
        let shared: Shared<u8> = Shared::default();
        assert_eq!(shared.get(async || Err("away")).await, Err("away"));
        assert_eq!(*shared.get(async || Ok::<_, &str>(7)).await.unwrap(), 7);
    }
}
