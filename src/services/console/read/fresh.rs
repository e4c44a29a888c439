//! One answer that many ask for: read once, shared while it is fresh. Failures too, so that a lost database is asked
//! once in a while and not by everybody.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::super::READ_PATIENCE;
use crate::store::Error;

type Answer<T> = Result<Arc<T>, Error>;

/// The newest answer, and when it was read.
#[derive(Debug)]
pub(in super::super) struct Fresh<T> {
    keep: Duration,
    newest: Mutex<Option<(Instant, Answer<T>)>>,
}

impl<T> Fresh<T> {
    pub(in super::super) fn new(keep: Duration) -> Self {
        Self { keep, newest: Mutex::new(None) }
    }

    /// The newest answer, or that of `read` when it is too old. Who comes meanwhile waits for the same one.
    pub(in super::super) async fn get(&self, read: impl Future<Output = Result<T, Error>>) -> Answer<T> {
        let mut newest = self.newest.lock().await;
        if let Some((at, answer)) = &*newest
            && at.elapsed() < self.keep
        {
            return answer.clone();
        }
        let answer = patiently(read).await.map(Arc::new);
        *newest = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// What `read` answers, or that the database cannot be reached when that takes too long.
pub(in super::super) async fn patiently<T>(read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(READ_PATIENCE, read).await.unwrap_or_else(|elapsed| Err(Error::unavailable(elapsed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_again_only_when_it_is_old_and_so_is_a_failure() {
        let fresh = Fresh::new(Duration::from_secs(10));
        assert!(fresh.get(async { Err(Error::Stopped) }).await.is_err());
        assert!(fresh.get(async { Ok(1) }).await.is_err(), "the failure is still fresh");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(*fresh.get(async { Ok(2) }).await.unwrap(), 2);
        assert_eq!(*fresh.get(async { Ok(3) }).await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let fresh: Fresh<()> = Fresh::new(Duration::from_secs(10));
        assert!(fresh.get(std::future::pending()).await.is_err());
    }
}
