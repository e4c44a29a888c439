//! Rejected, busy and broken: the three ways in which a request fails, and what a client is told of each.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

/// When to try again if an answer does not say it.
const RETRY_DEFAULT: Duration = Duration::from_secs(1);

/// When to try again while the disk is full.
const RETRY_NO_SPACE: Duration = Duration::from_secs(30);

/// Why a request was not carried out.
#[derive(Debug)]
pub enum Failure {
    /// The request is at fault: 4xx.
    Rejected(Rejection),
    /// A bound is reached for now: 503 with `Retry-After`.
    Busy {
        /// When to try again; sent in whole seconds, at least one.
        retry_after: Duration,
    },
    /// The disk is full, or nearly so: 507 with `Retry-After`. Nothing was stored.
    NoSpace,
    /// Quipu or something behind it is broken: 500 with a generic text. The log has the cause, under the request's id.
    Internal(Box<dyn Error + Send + Sync>),
}

/// The three classes of failures, as metrics count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The client has to change its request.
    Rejected,
    /// The client may repeat its request later: 429, 503 and 507.
    Busy,
    /// The operator has to look into the log.
    Broken,
}

impl FailureClass {
    /// The label in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Busy => "busy",
            Self::Broken => "broken",
        }
    }
}

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection(Box<Details>);

#[derive(Debug, Clone, PartialEq)]
struct Details {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    field: Option<Cow<'static, str>>,
    limit: Option<Value>,
    value: Option<Value>,
    retry_after: Option<Duration>,
}

/// The body of every answer that reports a failure, as JSON; sockets and event streams use the same fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorBody {
    /// Stable and machine-readable: lower case with underscores, or the word of the protocol that a room speaks.
    pub code: &'static str,
    /// For people.
    pub message: Cow<'static, str>,
    /// The field that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<Cow<'static, str>>,
    /// The limit that was passed, in the unit the field's name says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Value>,
    /// The value that passed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// When to try again, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// The id in `x-request-id` and in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Arc<str>>,
}

impl Rejection {
    /// A rejection with a 4xx `status`, whose code follows from the status; any other status becomes 400.
    #[must_use]
    pub fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        let status = if status.is_client_error() { status } else { StatusCode::BAD_REQUEST };
        let retry_after = (status == StatusCode::TOO_MANY_REQUESTS).then_some(RETRY_DEFAULT);
        let (code, message) = (code_of(status), message.into());
        Self(Box::new(Details { status, code, message, field: None, limit: None, value: None, retry_after }))
    }

    /// 400 for one field of the request.
    #[must_use]
    pub fn bad_field(field: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message).field(field)
    }

    /// 404: `what` is not there.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{what} not found"))
    }

    /// Replaces the code.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// Adds the field that is meant.
    #[must_use]
    pub fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Adds the limit that was passed and the value that passed it, in the unit the field's name says.
    #[must_use]
    pub fn over_limit(mut self, limit: impl Into<Value>, value: impl Into<Value>) -> Self {
        self.0.limit = Some(limit.into());
        self.value(value)
    }

    /// Adds the value that is refused.
    #[must_use]
    pub fn value(mut self, value: impl Into<Value>) -> Self {
        self.0.value = Some(value.into());
        self
    }

    /// Says when the same request may succeed.
    #[must_use]
    pub fn retry_after(mut self, retry_after: Duration) -> Self {
        self.0.retry_after = Some(retry_after);
        self
    }

    /// The answer's status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }
}

/// The code of a status that has no code of its own.
fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::REQUEST_TIMEOUT => "request_timeout",
        StatusCode::CONFLICT => "conflict",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
        StatusCode::MISDIRECTED_REQUEST => "misdirected_request",
        StatusCode::UNPROCESSABLE_ENTITY => "unprocessable",
        StatusCode::UPGRADE_REQUIRED => "upgrade_required",
        StatusCode::TOO_MANY_REQUESTS => "rate_limited",
        _ => "bad_request",
    }
}

impl Failure {
    /// The answer's status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Rejected(rejection) => rejection.status(),
            Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// How metrics count it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Rejected(rejection) if rejection.status() == StatusCode::TOO_MANY_REQUESTS => {
                FailureClass::Busy
            }
            Self::Rejected(_) => FailureClass::Rejected,
            Self::Busy { .. } | Self::NoSpace => FailureClass::Busy,
            Self::Internal(_) => FailureClass::Broken,
        }
    }

    /// What the client is told.
    #[must_use]
    pub fn body(&self, request_id: Option<&Arc<str>>) -> ErrorBody {
        let plain = |code, message: &'static str| ErrorBody {
            code,
            message: message.into(),
            field: None,
            limit: None,
            value: None,
            retry_after_s: self.retry_after_s(),
            request_id: request_id.cloned(),
        };
        match self {
            Self::Busy { .. } => plain("busy", "busy, try again later"),
            Self::NoSpace => plain(
                "no_space",
                "no space is left on the server's disk; nothing was stored, try again later",
            ),
            Self::Internal(_) => plain("internal", "internal error: the log has its cause, under this id"),
            Self::Rejected(Rejection(details)) => ErrorBody {
                message: details.message.clone(),
                field: details.field.clone(),
                limit: details.limit.clone(),
                value: details.value.clone(),
                ..plain(details.code, "")
            },
        }
    }

    fn retry_after_s(&self) -> Option<u64> {
        let retry_after = match self {
            Self::Rejected(rejection) => rejection.0.retry_after,
            Self::Busy { retry_after } => Some(*retry_after),
            Self::NoSpace => Some(RETRY_NO_SPACE),
            Self::Internal(_) => None,
        };
        retry_after.map(|retry_after| retry_after.as_secs().max(1))
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Every error that an edge turns neither into a rejection nor into `Busy` is internal.
impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Internal(Box::new(error))
    }
}

/// The answer carries its failure along, so that the guard in front of every route adds the request's id, logs and counts it.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let failure = Arc::new(self);
        let mut response = answer(&failure, &failure.body(None));
        response.extensions_mut().insert(failure);
        response
    }
}

/// A failure's answer with this body.
pub(super) fn answer(failure: &Failure, body: &ErrorBody) -> Response {
    let mut response = (failure.status(), Json(body)).into_response();
    if let Some(seconds) = body.retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rejection_says_code_field_limit_and_value() {
        let rejection = Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, "too large").field("size_bytes");
        let json = serde_json::to_value(Failure::from(rejection.over_limit(10, 11)).body(None)).unwrap();
        let expected = json!({
            "code": "too_large", "message": "too large", "field": "size_bytes", "limit": 10, "value": 11,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_rejection_is_never_a_success() {
        assert_eq!(Rejection::new(StatusCode::OK, "no").status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn busy_and_rate_limited_say_when_to_come_back() {
        let busy = Failure::Busy { retry_after: Duration::from_millis(1) };
        let limited = Failure::from(Rejection::new(StatusCode::TOO_MANY_REQUESTS, "slow down"));
        let full = Failure::NoSpace.into_response();
        assert_eq!((full.status().as_u16(), &full.headers()[RETRY_AFTER]), (507, &"30".parse().unwrap()));
        for (failure, status) in [(busy, 503), (limited, 429)] {
            assert_eq!(failure.class(), FailureClass::Busy);
            let answer = failure.into_response();
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()[RETRY_AFTER]),
                (status, &"1".parse().unwrap())
            );
        }
    }
}
