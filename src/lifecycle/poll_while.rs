//! Runs a future while a stream of other futures keeps being polled.

use std::pin::pin;

use futures_util::{Stream, StreamExt as _};

/// Runs `work` and polls `under_way` until it completes. Items that `under_way` yields meanwhile are added to
/// `ended`.
///
/// A future that is not polled keeps what it holds, such as a pooled connection. If `work` waited for a
/// connection while all connections were held by futures of `under_way`, it would deadlock.
pub async fn poll_while<S: Stream + Unpin, T>(
    work: impl Future<Output = T>,
    under_way: &mut S,
    ended: &mut impl Extend<S::Item>,
) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(end) = under_way.next() => ended.extend(std::iter::once(end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::FuturesUnordered;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn work_gets_a_permit_that_a_polled_future_releases() {
        let connection = Semaphore::new(1);
        let (mut under_way, mut ended) = (FuturesUnordered::new(), Vec::new());
        under_way.push(async {
            let _held = connection.acquire().await.expect("it is never closed");
            tokio::task::yield_now().await;
            "finished"
        });
        // It has started, holds the only permit, and is not polled any more.
        assert!(futures_util::poll!(under_way.next()).is_pending());
        let work = async { connection.acquire().await.is_ok() };
        assert!(poll_while(work, &mut under_way, &mut ended).await);
        assert_eq!(ended, ["finished"]);
    }
}
