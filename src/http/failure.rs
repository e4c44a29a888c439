//! Rejected, busy and broken are three different answers.
//!
//! A rejection is the client's to change and says exactly what. Busy is nobody's fault: come back. An
//! internal failure is ours: logged once, here, and the client learns nothing of the inside.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

/// Why a request was not carried out.
#[derive(Debug)]
pub enum Failure {
    /// The request is at fault: 4xx with a [`Rejection`] as JSON.
    Rejected(Rejection),
    /// A bound is reached for now: 503 with `Retry-After`.
    Busy {
        /// When to try again; sent in whole seconds, at least one.
        retry_after: Duration,
    },
    /// Quipu or something behind it is broken: 500 with a generic text.
    Internal(Box<dyn Error + Send + Sync>),
}

/// What is wrong with a request: `{"error", "field"?, "limit"?, "value"?}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rejection {
    #[serde(skip)]
    status: StatusCode,
    error: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
}

impl Rejection {
    /// A rejection with a 4xx `status`; any other becomes 400.
    #[must_use]
    pub fn new(status: StatusCode, error: impl Into<Cow<'static, str>>) -> Self {
        let status = if status.is_client_error() { status } else { StatusCode::BAD_REQUEST };
        Self { status, error: error.into(), field: None, limit: None, value: None }
    }

    /// 400 for one field of the request.
    #[must_use]
    pub fn bad_field(field: impl Into<Cow<'static, str>>, error: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field.into()), ..Self::new(StatusCode::BAD_REQUEST, error) }
    }

    /// 404: `what` is not there.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{what} not found"))
    }

    /// Adds the field that is meant.
    #[must_use]
    pub fn field(self, field: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// Adds the limit that was passed and the value that passed it, in the unit the field's name says.
    #[must_use]
    pub fn over_limit(self, limit: impl Into<Value>, value: impl Into<Value>) -> Self {
        Self { limit: Some(limit.into()), value: Some(value.into()), ..self }
    }

    /// The answer's status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Whatever an edge does not turn into a rejection or `Busy` is internal.
impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Internal(Box::new(error))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Rejected(rejection) => (rejection.status, Json(rejection)).into_response(),
            Self::Busy { retry_after } => {
                let seconds = HeaderValue::from(retry_after.as_secs().max(1));
                let body = Json(json!({ "error": "busy, try again later" }));
                (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, seconds)], body).into_response()
            }
            Self::Internal(error) => {
                tracing::error!(error = &*error as &(dyn Error + 'static), "a request failed: {error}");
                let body = Json(json!({ "error": "internal error" }));
                (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_says_field_limit_and_value() {
        let rejection = Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, "too large").field("size_bytes");
        let json = serde_json::to_value(rejection.over_limit(10, 11)).unwrap();
        assert_eq!(json, json!({ "error": "too large", "field": "size_bytes", "limit": 10, "value": 11 }));
    }

    #[test]
    fn a_rejection_is_never_a_success() {
        assert_eq!(Rejection::new(StatusCode::OK, "no").status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn busy_says_when_to_come_back() {
        let answer = Failure::Busy { retry_after: Duration::from_millis(1) }.into_response();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[RETRY_AFTER], "1");
    }
}
