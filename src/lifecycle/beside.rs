//! Work beside other work of the same task.

use std::pin::pin;

use futures_util::{Stream, StreamExt as _};

/// Does `work` while what is `under_way` goes on; what ends meanwhile is added to `ended`.
///
/// A future that nobody polls keeps what it holds, such as a connection. Work that waits for one would wait for ever when all of them
/// are held so.
pub async fn beside<S: Stream + Unpin, T>(
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
    async fn work_gets_what_is_held_by_what_goes_on() {
        let connection = Semaphore::new(1);
        let (mut under_way, mut ended) = (FuturesUnordered::new(), Vec::new());
        under_way.push(async {
            let _held = connection.acquire().await.expect("it is never closed");
            tokio::task::yield_now().await;
            "gone on"
        });
        // It is begun, holds the only one, and is not polled any more.
        assert!(futures_util::poll!(under_way.next()).is_pending());
        let work = async { connection.acquire().await.is_ok() };
        assert!(beside(work, &mut under_way, &mut ended).await);
        assert_eq!(ended, ["gone on"]);
    }
}
