//! The rules of jobs. They see neither the database nor the clock.
//!
//! | status | entered by | left by |
//! |---|---|---|
//! | waiting | submission of a job that depends on others; retried while they are not completed | unblocked; cancelled |
//! | pending | submission, unblocked, released, retried, expired with attempts left | leased; cancelled |
//! | running | leased | completed, failed, released, expired, cancelled |
//! | failed | failed with attempts left | leased after the pause; retried; cancelled |
//! | completed | completed | (final) |
//! | dead | failed or expired without attempts left, failed for good | retried |
//! | cancelled | cancelled | retried |
//!
//! Renewed, progress and reprioritized leave the status as it is. Every transition starts from the last step
//! of the job and is stored as the next one; of two that start from the same step, one is stored, and the
//! other is decided again from the new state.

mod access;
mod backoff;
mod claims;
mod grant;
mod import;
mod lease_token;
mod limits;
mod login;
mod object_key;
mod ready_index;
mod schedule;
mod snapshot;
mod stream_cursor;
mod submission;
mod transition;
mod webhook;
mod worker;

#[cfg(test)]
mod lives;

pub use access::{Actor, Scope};
pub use backoff::{BACKOFF_MAX_S, backoff_us};
pub use claims::{NotServed, SlotOffer, leased, may_claim};
pub use grant::{Grant, GrantedMethod, MultipartGrant, SealError, seal, unseal};
pub use import::{ImportedState, imported_state};
pub use lease_token::{LeaseKey, LeaseTokenError, lease_token, read_lease_token};
pub use limits::{
    DETAIL_BYTES_MAX, ERROR_BYTES_MAX, NAME_BYTES_MAX, PRIORITIES, PRIORITY_DEFAULT, PRIORITY_FIRST,
    PRIORITY_LAST, PROGRESS_BYTES_MAX, TOKEN_DAYS_MAX, WORKER_METADATA_BYTES_MAX, cut,
};
pub use login::{Admission, GroupRules, admit, local_path, user_label};
pub use object_key::{OUTPUT_NAME, ObjectKey};
pub use ready_index::{Candidate, ReadyIndex, Search};
pub use schedule::{RecurrenceError, SCHEDULES_MAX, UTC, check_cron, due_times, next_look, time_zone};
pub use snapshot::{Window, window};
pub use stream_cursor::{NotACursor, StreamCursor};
pub use submission::{
    CheckedNumbers, DEPENDS_ON_MAX, SubmissionError, SubmissionFields, TEXT_BYTES_MAX, TYPE_BYTES_MAX,
    WEBHOOK, check_detail, check_not_reserved, check_priority, check_submission, check_text, scheduled_key,
    unique_key,
};
pub use transition::{Decision, Refusal, Settled, decide, repeated};
pub use webhook::{Answer, Receiver, WebhookTask, body_of, signature, webhook_type};
pub use worker::{WORKERS_MAX, WorkerRefusal, change_worker, is_new_beat};
