//! Decides with which state a job of another queue, BlobForge, goes on here.

use crate::services::jobs::event::Status;

/// The state of an imported job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportedState {
    /// Pending, completed, dead or cancelled.
    pub status: Status,
    /// Attempts so far.
    pub attempts: i32,
    /// Those of them that failed.
    pub failures: i32,
}

/// The state of a job with this status and these attempts there. A job that ran is pending, and its attempt
/// does not count: its worker cannot answer here. A job that is to be tried has at least one attempt left.
/// `None` for an unknown status.
#[must_use]
pub fn imported_state(status: &str, attempts: i64, attempts_max: i32) -> Option<ImportedState> {
    // The original counts an attempt when it begins.
    let attempts = i32::try_from(attempts.clamp(0, 1_000_000)).unwrap_or(i32::MAX);
    let open = |failures: i32| (Status::Pending, failures.clamp(0, attempts_max - 1));
    let (status, failures) = match status {
        "pending" | "failed" => open(attempts),
        "running" => open(attempts - 1),
        "completed" => (Status::Completed, (attempts - 1).max(0)),
        "dead" => (Status::Dead, attempts.max(1)),
        "cancelled" => (Status::Cancelled, attempts),
        _ => return None,
    };
    Some(ImportedState { status, attempts, failures })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_goes_on_where_it_was_and_one_that_ran_begins_its_attempt_anew() {
        let state = |status, attempts| {
            imported_state(status, attempts, 3)
                .map(|state| (state.status.as_str(), state.attempts, state.failures))
        };
        assert_eq!(state("pending", 0), Some(("pending", 0, 0)));
        assert_eq!(state("pending", 2), Some(("pending", 2, 2)));
        assert_eq!(state("failed", 1), Some(("pending", 1, 1)));
        assert_eq!(state("running", 1), Some(("pending", 1, 0)));
        assert_eq!(state("running", 0), Some(("pending", 0, 0)));
        // The original claimed jobs without looking at their attempts.
        assert_eq!(state("pending", 9), Some(("pending", 9, 2)));
        assert_eq!(state("completed", 2), Some(("completed", 2, 1)));
        assert_eq!(state("completed", 0), Some(("completed", 0, 0)));
        assert_eq!(state("dead", 3), Some(("dead", 3, 3)));
        assert_eq!(state("cancelled", -4), Some(("cancelled", 0, 0)));
        assert_eq!(state("lost", 1), None);
    }
}
