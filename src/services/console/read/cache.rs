//! A cached query result that several requests share. Failures are cached too, so that an unavailable
//! database is not queried by every request.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::super::READ_TIMEOUT;
use crate::store::Error;

type Answer<T> = Result<Arc<T>, Error>;

/// A query result with the time at which it was read.
#[derive(Debug)]
pub(in super::super) struct Cached<T> {
    ttl: Duration,
    newest: Mutex<Option<(Instant, Answer<T>)>>,
}

impl<T> Cached<T> {
    pub(in super::super) fn new(ttl: Duration) -> Self {
        Self { ttl, newest: Mutex::new(None) }
    }

    /// The cached result, or that of `read` if it has expired. Concurrent callers wait for the same read.
    pub(in super::super) async fn get(&self, read: impl Future<Output = Result<T, Error>>) -> Answer<T> {
        let mut newest = self.newest.lock().await;
        if let Some((at, answer)) = &*newest
            && at.elapsed() < self.ttl
        {
            return answer.clone();
        }
        let answer = with_timeout(read).await.map(Arc::new);
        *newest = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// The result of `read`, or [`Error::unavailable`] when it takes too long.
pub(in super::super) async fn with_timeout<T>(
    read: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(READ_TIMEOUT, read).await.unwrap_or_else(|elapsed| Err(Error::unavailable(elapsed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_again_only_when_it_is_old_and_so_is_a_failure() {
        let cached = Cached::new(Duration::from_secs(10));
        assert!(cached.get(async { Err(Error::Stopped) }).await.is_err());
        assert!(cached.get(async { Ok(1) }).await.is_err(), "the failure is still cached");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(*cached.get(async { Ok(2) }).await.unwrap(), 2);
        assert_eq!(*cached.get(async { Ok(3) }).await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_hangs_times_out() {
        let cached: Cached<()> = Cached::new(Duration::from_secs(10));
        assert!(cached.get(std::future::pending()).await.is_err());
    }
}
