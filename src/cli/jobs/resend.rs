//! Sends requests again that may succeed later.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};

use super::client::Trouble;
use super::transfer_error::TransferError;

/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Further tries of a transfer, which take about a minute.
const AGAIN_MAX: usize = 8;

fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(PAUSE_MAX)
}

fn tell(trouble: &impl Display, pause: Duration) {
    tracing::warn!("{trouble}; trying again in {:.1} s", pause.as_secs_f64());
}

/// Sends a request until it succeeds or is refused for good.
pub(super) async fn patiently<T, F: Future<Output = Result<T, Trouble>>>(
    request: impl FnMut() -> F,
) -> Result<T, Trouble> {
    request.retry(backoff().without_max_times()).when(Trouble::is_transient).notify(tell).await
}

/// Tries a transfer several times, unless it is refused for good.
pub(super) async fn several_times<T, F: Future<Output = Result<T, TransferError>>>(
    transfer: impl FnMut() -> F,
) -> Result<T, TransferError> {
    transfer.retry(backoff().with_max_times(AGAIN_MAX)).when(TransferError::is_transient).notify(tell).await
}
