//! Limits of jobs that the settings, the rules and the command line share.

/// Most attempts of a job, webhooks included.
pub const JOB_ATTEMPTS_MAX: i32 = 100;

/// Shortest lease of a job, seconds: below, the heartbeats of its worker could not keep it.
pub const JOB_LEASE_S_MIN: i32 = 10;

/// Longest lease of a job, seconds: above, a crashed worker would keep its job for more than a day.
pub const JOB_LEASE_S_MAX: i32 = 86_400;
