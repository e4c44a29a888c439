//! SIGINT and SIGTERM: the first signal asks for a clean stop, the second for an immediate end.

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Names of the stop signals, in the order received.
pub type StopSignals = BoxStream<'static, &'static str>;

/// The stream of this process's SIGINT and SIGTERM. From this call on they do not end the process by
/// themselves.
///
/// # Errors
/// When the system refuses to install a signal handler.
pub fn stop_signals() -> std::io::Result<StopSignals> {
    let arrivals = |kind, name| {
        let arriving = signal(kind)?;
        std::io::Result::Ok(stream::unfold(arriving, move |mut arriving| async move {
            arriving.recv().await.map(|()| (name, arriving))
        }))
    };
    Ok(stream::select(
        arrivals(SignalKind::interrupt(), "SIGINT")?.boxed(),
        arrivals(SignalKind::terminate(), "SIGTERM")?.boxed(),
    )
    .boxed())
}

/// Runs one phase of a process while watching for signals. The first signal cancels `stop`, which the work
/// watches in order to end cleanly. A signal that arrives after `stop` was cancelled drops the work and
/// returns `None`. `phase` completes the log line "SIGINT while …".
pub async fn until_signals<T>(
    signals: &mut (impl Stream<Item: Display> + Unpin),
    stop: &CancellationToken,
    phase: &str,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            ended = &mut work => return Some(ended),
            Some(name) = signals.next() => {
                if stop.is_cancelled() {
                    tracing::warn!("{name} while {phase}: aborting");
                    return None;
                }
                tracing::info!("{name} while {phase}: stopping, once more to abort");
                stop.cancel();
            }
        }
    }
}
