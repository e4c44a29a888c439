//! Repeats requests that broke in a way that may pass.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use tokio::time::Instant;

use super::UpstreamError;

/// Pause before the second attempt; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(100);

/// No attempt begins later than this after the first one: a client waits.
const WITHIN: Duration = Duration::from_secs(5);

/// Calls `once` up to `most` times, until it succeeds or fails for good.
pub(super) async fn repeated<T, F>(most: u32, once: impl FnMut() -> F) -> Result<T, UpstreamError>
where
    F: Future<Output = Result<T, UpstreamError>>,
{
    let began = Instant::now();
    let further = usize::try_from(most.saturating_sub(1)).unwrap_or(usize::MAX);
    let pauses = ExponentialBuilder::default().with_min_delay(PAUSE).with_max_times(further);
    once.retry(pauses)
        .when(|error: &UpstreamError| error.retry && !error.is_broken_off() && began.elapsed() < WITHIN)
        .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_repeated_and_a_refusal_or_a_slow_answer_is_not() {
        let calls = Cell::new(0);
        let answer = |status: u16, takes: u64| {
            let calls = &calls;
            calls.set(0);
            move || async move {
                calls.set(calls.get() + 1);
                tokio::time::sleep(Duration::from_secs(takes)).await;
                if status == 200 { Ok(()) } else { Err(UpstreamError::answered(status, None)) }
            }
        };
        for (status, takes, expected) in [(200, 0, 1), (503, 0, 3), (404, 0, 1), (503, 10, 1)] {
            let result = repeated(3, answer(status, takes)).await;
            assert_eq!((result.is_ok(), calls.get()), (status == 200, expected), "{status} after {takes} s");
        }
    }
}
