//! Refusals and failures as answers. Each has its text in the body and in `X-Reason`, which is all that clients of Blossom read.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::StatusCode;

use super::BlossomState;
use crate::http::{Failure, Rejection};
use crate::services::blossom::decide::authorization::TokenError;
use crate::store::Error;

/// How long a client should wait before a retry while the database or a limit is busy.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a client should wait after too many requests.
const RETRY_RATE: Duration = Duration::from_secs(10);

/// The reason when no copy of a blob can be read.
const UNAVAILABLE: &str = "unavailable";

/// Why a request is refused or fails.
#[derive(Debug)]
pub(super) struct Refused {
    /// Under which it is counted.
    reason: &'static str,
    failure: Failure,
}

impl Refused {
    /// A rejection with this status. `reason` is its code and the reason under which it is counted.
    pub(super) fn new(
        status: StatusCode,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { reason, failure: Rejection::new(status, message).code(reason).into() }
    }

    /// 400 for a field of the request.
    pub(super) fn field(
        reason: &'static str,
        field: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { reason, failure: Rejection::bad_field(field, message).code(reason).into() }
    }

    /// 400 for a hash that is none.
    pub(super) fn bad_hash(field: &'static str) -> Self {
        Self::field("bad_hash", field, "expected the SHA-256 of a blob, 64 hexadecimal digits")
    }

    /// 401 without a token.
    pub(super) fn no_token() -> Self {
        let message = "a token is required: Authorization: Nostr and a signed event of kind 24242 (BUD-11)";
        Self::new(StatusCode::UNAUTHORIZED, "no_token", message)
    }

    /// 401 for a token that cannot be read.
    pub(super) fn bad_token(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "bad_token", message)
    }

    /// 403 for a key that may not do this.
    pub(super) fn not_allowed() -> Self {
        Self::new(StatusCode::FORBIDDEN, "not_allowed", "this key may not store blobs here")
    }

    /// 403 for a page of another site.
    pub(super) fn other_site() -> Self {
        let message = "set services.blossom.public_url to serve pages of other sites";
        Self::new(StatusCode::FORBIDDEN, "other_site", message)
    }

    /// 403 for a banned blob.
    pub(super) fn banned(why: &str) -> Self {
        let message = if why.is_empty() {
            "this blob is not served here".to_owned()
        } else {
            format!("this blob is not served here: {why}")
        };
        Self::new(StatusCode::FORBIDDEN, "banned", message)
    }

    /// 404.
    pub(super) fn absent() -> Self {
        Self::new(StatusCode::NOT_FOUND, "absent", "no such blob")
    }

    /// 429.
    pub(super) fn too_many(message: impl Into<Cow<'static, str>>) -> Self {
        let rejection = Rejection::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(RETRY_RATE);
        Self { reason: "too_many", failure: rejection.code("too_many").into() }
    }

    /// 502: the upstreams failed.
    pub(super) fn gateway(reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, failure: Failure::Gateway(message.into()) }
    }

    /// 503: the blob exists, and no copy can be read now.
    pub(super) fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        tracing::debug!("a blob is not available: {message}");
        Self::busy(UNAVAILABLE)
    }

    /// Whether it is [`Refused::unavailable`].
    pub(super) fn is_unavailable(&self) -> bool {
        self.reason == UNAVAILABLE
    }

    /// 503: a limit of this server is reached at the moment.
    pub(super) fn busy(reason: &'static str) -> Self {
        Self { reason, failure: Failure::Busy { retry_after: RETRY_AFTER } }
    }

    /// 507: the disk is full.
    pub(super) fn no_space() -> Self {
        Self { reason: "no_space", failure: Failure::NoSpace }
    }

    /// Any other rejection.
    pub(super) fn rejected(reason: &'static str, rejection: Rejection) -> Self {
        Self { reason, failure: rejection.into() }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        self.failure.status()
    }
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        let reason = match error {
            TokenError::Expired => "expired_token",
            TokenError::OtherVerb => "wrong_verb",
            TokenError::OtherServer => "wrong_server",
            TokenError::NoBlob | TokenError::OtherBlob => "wrong_blob",
            _ => "bad_token",
        };
        let rejection = Rejection::new(StatusCode::UNAUTHORIZED, error.to_string()).field("authorization");
        Self { reason, failure: rejection.code(error.code()).into() }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error {
            Error::Data(error) => {
                tracing::warn!(error = %error, "the database refuses a client's data: {error}");
                let message = "the database refuses this data; the same request cannot succeed";
                Self::new(StatusCode::BAD_REQUEST, "store_data", message)
            }
            // Not logged here: the log reports the lack of space once, not for each request.
            Error::NoSpace(_) => Self::no_space(),
            error if error.is_outage() => {
                tracing::warn!(error = %error, "a request failed because the database is unavailable: {error}");
                Self::busy("store_busy")
            }
            error => Self { reason: "store_broken", failure: error.into() },
        }
    }
}

impl BlossomState {
    /// Counts a refusal, and converts it to the failure that is answered.
    pub(super) fn refuse(&self, refused: impl Into<Refused>) -> Failure {
        let Refused { reason, failure } = refused.into();
        self.parts().metrics.refused(reason);
        failure
    }
}
