//! Confines a panic to the unit of work in which it happened.
//!
//! A unit is one session, check, request or cycle. [`guarded`] converts its panic into an error of that unit,
//! logs it with the unit's subject, and counts it. The caller handles it like any other failure of that
//! subject, with back-off.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;

/// Characters kept of a panic message, which may contain third-party data.
const MESSAGE_MAX: usize = 300;

/// Number of panics in this process, by kind of unit.
static PANICS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// A unit of work ended with a panic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {message}")]
pub struct Panicked {
    message: String,
}

/// Runs `work`. A panic becomes an error, is logged with `subject` (a URL, an id, an address) and counted
/// under `unit` in `quipu_panics_total`. `unit` names the kind of work, such as `monitor_check`.
///
/// State shared with `work` must stay usable if a panic interrupts a change; locks are taken with
/// `PoisonError::into_inner`.
///
/// # Errors
/// [`Panicked`] with the panic's message.
pub async fn guarded<T>(
    unit: &'static str,
    subject: &str,
    work: impl Future<Output = T>,
) -> Result<T, Panicked> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| panicked(unit, subject, &*panic))
}

/// [`guarded`] for synchronous work.
///
/// # Errors
/// [`Panicked`] with the panic's message.
pub fn guarded_call<T>(unit: &'static str, subject: &str, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panicked(unit, subject, &*panic))
}

/// Logs and counts a panic that other code has caught: a task's `JoinError`, or an HTTP layer.
#[must_use]
pub fn panicked(unit: &'static str, subject: &str, panic: &(dyn Any + Send)) -> Panicked {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    // PostgreSQL cannot store NUL, and the message may be recorded as a reason.
    let message: String =
        text.chars().take(MESSAGE_MAX).map(|c| if c == '\0' { '\u{2400}' } else { c }).collect();
    *panics().entry(unit).or_default() += 1;
    tracing::error!(unit, subject, error = message, "{unit} of {subject} panicked: {message}");
    Panicked { message }
}

/// Number of panics in this process, by kind of unit.
#[must_use]
pub fn panics_by_unit() -> BTreeMap<&'static str, u64> {
    panics().clone()
}

fn panics() -> MutexGuard<'static, BTreeMap<&'static str, u64>> {
    PANICS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_counted_error_of_its_unit_and_other_units_continue() {
        let careless = async {
            tokio::task::yield_now().await;
            assert!(std::hint::black_box(false), "a value\0");
        };
        let (broken, whole) = tokio::join!(
            guarded("test_unit", "wss://a", careless),
            guarded("test_unit", "wss://b", async { 7 })
        );
        assert_eq!(broken.unwrap_err().to_string(), "panicked: a value\u{2400}");
        assert_eq!(whole, Ok(7));
        assert_eq!(panics_by_unit()["test_unit"], 1);
    }

    #[test]
    fn a_message_is_cut() {
        let long = "x".repeat(10_000);
        let broken = guarded_call("test_call", "an event", || assert!(long.is_empty(), "{long}"));
        assert_eq!(broken.unwrap_err().to_string().len(), "panicked: ".len() + MESSAGE_MAX);
    }
}
