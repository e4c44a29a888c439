//! A cached query result that several requests share. Failures are cached too, so that an unavailable
//! database is not queried by every request.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::super::READ_TIMEOUT;
use crate::store::Error;

type Answer<T> = Result<Arc<T>, Error>;

type Newest<T> = Option<(Instant, Answer<T>)>;

type Query<T> = dyn Fn(PgPool) -> BoxFuture<'static, Result<T, Error>> + Send + Sync;

/// A query with its newest result and the time at which that was read.
pub(in super::super) struct Cached<T> {
    ttl: Duration,
    pool: PgPool,
    query: Box<Query<T>>,
    newest: Arc<Mutex<Newest<T>>>,
}

impl<T: Send + Sync + 'static> Cached<T> {
    /// A query that is sent to `pool` at most once each `ttl`.
    pub(in super::super) fn new<F>(
        ttl: Duration,
        pool: &PgPool,
        query: impl Fn(PgPool) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        Self {
            ttl,
            pool: pool.clone(),
            query: Box::new(move |pool| query(pool).boxed()),
            newest: Arc::default(),
        }
    }

    /// The newest result, read again if it has expired. Concurrent callers wait for the same read. It goes on
    /// when its caller leaves: PostgreSQL would not end the statement, and the next caller would start another
    /// one, so that a client that leaves again and again would take every connection of the pool.
    pub(in super::super) async fn get(&self) -> Answer<T> {
        let mut newest = Arc::clone(&self.newest).lock_owned().await;
        if let Some((at, answer)) = &*newest
            && at.elapsed() < self.ttl
        {
            return answer.clone();
        }
        let read = (self.query)(self.pool.clone());
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

    /// Its pool never connects.
    fn cached<T, F>(query: impl Fn(PgPool) -> F + Send + Sync + 'static) -> Cached<T>
    where
        T: Send + Sync + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let pool = PgPool::connect_lazy("postgres://localhost/none").expect("a URL");
        Cached::new(Duration::from_secs(10), &pool, query)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_again_only_when_it_is_old_and_so_is_a_failure() {
        let reads = AtomicUsize::new(0);
        let cached = cached(move |_| {
            let number = reads.fetch_add(1, Ordering::Relaxed);
            async move { if number == 0 { Err(Error::Stopped) } else { Ok(number) } }
        });
        assert!(cached.get().await.is_err());
        assert!(cached.get().await.is_err(), "the failure is still cached");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(*cached.get().await.unwrap(), 1);
        assert_eq!(*cached.get().await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_hangs_times_out() {
        assert!(cached::<(), _>(|_| std::future::pending()).get().await.is_err());
    }

    #[tokio::test]
    async fn callers_that_leave_start_no_further_read() {
        let (reads, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, awaited) = (Arc::clone(&reads), Arc::clone(&go_on));
        let cached = cached(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            let awaited = Arc::clone(&awaited);
            async move {
                awaited.notified().await;
                Ok(7)
            }
        });
        for _ in 0..20 {
            assert!(timeout(Duration::from_millis(1), cached.get()).await.is_err(), "it leaves");
        }
        go_on.notify_one();
        assert_eq!(*cached.get().await.unwrap(), 7);
        assert_eq!(reads.load(Ordering::Relaxed), 1);
    }
}
