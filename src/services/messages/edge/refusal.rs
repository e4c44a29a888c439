//! Why a request is refused or fails, in one form for HTTP, sockets and event streams.

use std::time::Duration;

use axum::http::StatusCode;

use super::MessagesState;
use super::frame::ErrorCode;
use super::limit_exceeded::LimitExceeded;
use crate::http::{Failure, Rejection};
use crate::store::Error;

/// How long a client should wait before a retry while the database is unavailable or busy.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a client should wait before a retry after it has reached a quota. When there is room again
/// depends on others (a recipient that acknowledges) or on hours that pass, so it cannot be known; this keeps
/// clients from asking every second.
const QUOTA_RETRY_AFTER: Duration = Duration::from_mins(1);

/// Why a request is refused or fails.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The request is invalid or exceeds a limit.
    Request {
        code: ErrorCode,
        field: &'static str,
        message: String,
        /// The exceeded limit and the value that exceeds it.
        limit: Option<(u64, u64)>,
    },
    /// The database rejected the data, is unavailable, or failed.
    Store(Error),
}

impl Refusal {
    pub(super) fn request(code: ErrorCode, field: &'static str, message: impl Into<String>) -> Self {
        Self::Request { code, field, message: message.into(), limit: None }
    }

    pub(super) fn limit_exceeded(
        code: ErrorCode,
        field: &'static str,
        message: String,
        limit: u64,
        value: u64,
    ) -> Self {
        Self::Request { code, field, message, limit: Some((limit, value)) }
    }

    /// The label in metrics: the field at fault, or the kind of database failure.
    fn reason(&self) -> &'static str {
        match self {
            Self::Request { field, .. } => field,
            Self::Store(Error::Data(_)) => "store_data",
            Self::Store(Error::NoSpace(_)) => "no_space",
            Self::Store(error) if error.is_outage() => "store_busy",
            Self::Store(_) => "store_broken",
        }
    }

    /// The error code for a client of a socket.
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Request { code, .. } => *code,
            Self::Store(Error::Data(_)) => ErrorCode::InvalidPayload,
            // The protocol has no code for an unavailable or busy relay.
            Self::Store(_) => ErrorCode::InternalError,
        }
    }

    fn failure(self) -> Failure {
        let (code, field, message, limit) = match self {
            Self::Request { code, field, message, limit } => (code, field, message, limit),
            Self::Store(Error::Data(error)) => {
                tracing::warn!("the database refuses a client's data: {error}");
                let message = "the database refuses this data; the same request cannot succeed".to_owned();
                (ErrorCode::InvalidPayload, "data", message, None)
            }
            // Not logged here: the log reports the lack of space once, not for each request.
            Self::Store(Error::NoSpace(_)) => return Failure::NoSpace,
            Self::Store(error) if error.is_outage() => {
                tracing::warn!("a request failed because the database is unavailable: {error}");
                return Failure::Busy { retry_after: RETRY_AFTER };
            }
            Self::Store(error) => return error.into(),
        };
        let rejection = Rejection::new(status(code), message).code(code.as_str()).field(field);
        let rejection = match code {
            ErrorCode::QuotaExceeded => rejection.retry_after(QUOTA_RETRY_AFTER),
            _ => rejection,
        };
        match limit {
            Some((limit, value)) => rejection.over_limit(limit, value).into(),
            None => rejection.into(),
        }
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::AuthFailed => StatusCode::UNAUTHORIZED,
        ErrorCode::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::RateLimited | ErrorCode::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::IdempotencyMismatch => StatusCode::CONFLICT,
        ErrorCode::InvalidWayfarerId
        | ErrorCode::ToMismatch
        | ErrorCode::InvalidPayload
        | ErrorCode::RecipientOffline
        | ErrorCode::InternalError => StatusCode::BAD_REQUEST,
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<LimitExceeded> for Refusal {
    fn from(exceeded: LimitExceeded) -> Self {
        match exceeded {
            LimitExceeded::Rate { field, counted, per, limit } => {
                let message = format!("more than {limit} {counted} a {per}; slow down and send it again");
                Self::request(ErrorCode::RateLimited, field, message)
            }
            LimitExceeded::Sent { unit, limit, used } => {
                let message = format!("you sent {used} {unit} within 24 hours; at most {limit} are allowed");
                Self::limit_exceeded(ErrorCode::QuotaExceeded, "sender", message, limit, used)
            }
            LimitExceeded::Share { unit, limit, used } => {
                let message = format!(
                    "{used} {unit} that you sent wait for this recipient; at most {limit} of one sender are allowed; \
                     try again after {} s",
                    QUOTA_RETRY_AFTER.as_secs()
                );
                Self::limit_exceeded(ErrorCode::QuotaExceeded, "sender_share", message, limit, used)
            }
            // The usage is left out, because a sender must not learn how many messages wait for a recipient.
            LimitExceeded::Inbox => {
                let message = "the recipient's inbox has no room for this message; send it again later";
                Self::request(ErrorCode::QuotaExceeded, "recipient", message)
            }
        }
    }
}

impl MessagesState {
    /// Counts a refusal and converts it to the failure that the transport reports.
    pub(super) fn refuse(&self, refusal: impl Into<Refusal>) -> Failure {
        let refusal = refusal.into();
        self.parts().message_metrics.refused(refusal.reason());
        if let Refusal::Store(_) = &refusal {
            self.parts().message_metrics.store_error();
        }
        refusal.failure()
    }
}
