//! Failures of requests (rejected, busy, broken) and the response for each.

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

/// Default of `Retry-After` for 429.
const RETRY_DEFAULT: Duration = Duration::from_secs(1);

/// `Retry-After` while the disk is full.
const RETRY_NO_SPACE: Duration = Duration::from_secs(30);

/// Why a request failed.
#[derive(Debug)]
pub enum Failure {
    /// The request is at fault: 4xx.
    Rejected(Rejection),
    /// A limit is reached at the moment: 503 with `Retry-After`.
    Busy {
        /// Sent as `Retry-After` in whole seconds, at least one.
        retry_after: Duration,
    },
    /// The disk is full or nearly full: 507 with `Retry-After`. Nothing was stored.
    NoSpace,
    /// A server that this one depends on for the request failed: 502 with the reason.
    Gateway(Cow<'static, str>),
    /// An internal error: 500 with a generic text. The log has the cause under the request id.
    Internal(Box<dyn Error + Send + Sync>),
}

/// Classes of failures, as metrics count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The client has to change its request.
    Rejected,
    /// The client may repeat its request later: 429, 502, 503 and 507.
    Busy,
    /// The operator has to look at the log.
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
    /// Stable machine-readable code: lower case with underscores, or a code of the room's protocol.
    pub code: &'static str,
    /// Text for people.
    pub message: Cow<'static, str>,
    /// The same text, on listeners whose clients expect it under this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'static, str>>,
    /// The field of the request that is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<Cow<'static, str>>,
    /// The limit that was exceeded, in the unit that the field's name states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Value>,
    /// The value that exceeded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Seconds after which to retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// The request id, as in `x-request-id` and in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Arc<str>>,
}

impl Rejection {
    /// A rejection with a 4xx `status` and the default code of that status. Any other status becomes 400.
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

    /// 404 for a missing `what`.
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

    /// Adds the field that is at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Adds the limit and the value that exceeded it, in the unit that the field's name states.
    #[must_use]
    pub fn over_limit(mut self, limit: impl Into<Value>, value: impl Into<Value>) -> Self {
        self.0.limit = Some(limit.into());
        self.value(value)
    }

    /// Adds the refused value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Value>) -> Self {
        self.0.value = Some(value.into());
        self
    }

    /// Sets `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, retry_after: Duration) -> Self {
        self.0.retry_after = Some(retry_after);
        self
    }

    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }
}

/// The default code of a status.
fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::PAYMENT_REQUIRED => "payment_required",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::REQUEST_TIMEOUT => "request_timeout",
        StatusCode::CONFLICT => "conflict",
        StatusCode::LENGTH_REQUIRED => "length_required",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
        StatusCode::RANGE_NOT_SATISFIABLE => "range_not_satisfiable",
        StatusCode::MISDIRECTED_REQUEST => "misdirected_request",
        StatusCode::UNPROCESSABLE_ENTITY => "unprocessable",
        StatusCode::UPGRADE_REQUIRED => "upgrade_required",
        StatusCode::TOO_MANY_REQUESTS => "rate_limited",
        _ => "bad_request",
    }
}

impl Failure {
    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Rejected(rejection) => rejection.status(),
            Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            Self::Gateway(_) => StatusCode::BAD_GATEWAY,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The class under which metrics count it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Rejected(rejection) if rejection.status() == StatusCode::TOO_MANY_REQUESTS => {
                FailureClass::Busy
            }
            Self::Rejected(_) => FailureClass::Rejected,
            Self::Busy { .. } | Self::NoSpace | Self::Gateway(_) => FailureClass::Busy,
            Self::Internal(_) => FailureClass::Broken,
        }
    }

    /// The body for the client.
    #[must_use]
    pub fn body(&self, request_id: Option<&Arc<str>>) -> ErrorBody {
        let plain = |code, message: &'static str| ErrorBody {
            code,
            message: message.into(),
            error: None,
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
            Self::Gateway(reason) => ErrorBody { message: reason.clone(), ..plain("bad_gateway", "") },
            Self::Internal(_) => {
                plain("internal", "internal error: the server's log has the cause under this request id")
            }
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
            Self::Gateway(_) | Self::Internal(_) => None,
        };
        retry_after.map(|retry_after| retry_after.as_secs().max(1))
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Errors that a route does not convert into a rejection or `Busy` are internal.
impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Internal(Box::new(error))
    }
}

/// Attaches the failure to the response, so that the guard in front of every route can add the request id,
/// log it and count it.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let failure = Arc::new(self);
        let mut response = answer(&failure, &failure.body(None));
        response.extensions_mut().insert(failure);
        response
    }
}

/// The response for a failure with this body.
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
    fn a_rejection_has_code_field_limit_and_value() {
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
    fn busy_and_rate_limited_have_retry_after() {
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
