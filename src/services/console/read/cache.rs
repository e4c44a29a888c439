//! A cached query result that several requests share. Failures are cached too, so that an unavailable
//! database is not queried by every request.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::super::READ_TIMEOUT;
use crate::store::Error;

type Answer<T> = Result<Arc<T>, Error>;

/// A query result with the time at which it was read.
#[derive(Debug)]
pub(in super::super) struct Cached<T> {
    ttl: Duration,
    newest: Arc<Mutex<Option<(Instant, Answer<T>)>>>,
}

impl<T: Send + Sync + 'static> Cached<T> {
    pub(in super::super) fn new(ttl: Duration) -> Self {
        Self { ttl, newest: Arc::default() }
    }

    /// The cached result, or that of `read` if it has expired. Concurrent callers wait for the same read. It
    /// goes on when its caller leaves: PostgreSQL would not end the statement, and the next caller would start
    /// another one, so that a client that leaves again and again would take every connection of the pool.
    pub(in super::super) async fn get<F>(&self, pool: &PgPool, read: impl FnOnce(PgPool) -> F) -> Answer<T>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut newest = Arc::clone(&self.newest).lock_owned().await;
        if let Some((at, answer)) = &*newest
            && at.elapsed() < self.ttl
        {
            return answer.clone();
        }
        let read = read(pool.clone());
        #[expect(clippy::disallowed_methods, reason = "ends by itself at the time limit of a read")]
        let reading = tokio::spawn(async move {
            let answer = with_timeout(read).await.map(Arc::new);
            *newest = Some((Instant::now(), answer.clone()));
            answer
        });
        reading.await.unwrap_or_else(|error| Err(Error::unavailable(error)))
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// A pool that never connects.
    fn pool() -> PgPool {
        PgPool::connect_lazy("postgres://localhost/none").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_again_only_when_it_is_old_and_so_is_a_failure() {
        let (cached, pool) = (Cached::new(Duration::from_secs(10)), pool());
        assert!(cached.get(&pool, |_| async { Err(Error::Stopped) }).await.is_err());
        assert!(cached.get(&pool, |_| async { Ok(1) }).await.is_err(), "the failure is still cached");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(*cached.get(&pool, |_| async { Ok(2) }).await.unwrap(), 2);
        assert_eq!(*cached.get(&pool, |_| async { Ok(3) }).await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_hangs_times_out() {
        let cached: Cached<()> = Cached::new(Duration::from_secs(10));
        assert!(cached.get(&pool(), |_| std::future::pending()).await.is_err());
    }

    #[tokio::test]
    async fn callers_that_leave_start_no_further_read() {
        let (cached, pool) = (Cached::new(Duration::from_secs(10)), pool());
        let (reads, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let read = |_| {
            let (reads, go_on) = (Arc::clone(&reads), Arc::clone(&go_on));
            async move {
                reads.fetch_add(1, Ordering::Relaxed);
                go_on.notified().await;
                Ok(7)
            }
        };
        for _ in 0..20 {
            assert!(timeout(Duration::from_millis(1), cached.get(&pool, read)).await.is_err(), "it leaves");
        }
        go_on.notify_one();
        assert_eq!(*cached.get(&pool, read).await.unwrap(), 7);
        assert_eq!(reads.load(Ordering::Relaxed), 1);
    }
}
