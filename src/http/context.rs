//! Context of a request that routes can use.

use std::error::Error;
use std::sync::Arc;

use super::client::ClientAddress;
use super::metrics::HttpMetrics;
use super::{ErrorBody, Failure};

/// What the clients of one listener expect of errors, beside what all listeners send.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dialect {
    /// Whether errors have their text under `error` as well.
    pub(super) has_error_field: bool,
    /// Whether errors have their text in the field `X-Reason` as well.
    pub(super) has_reason: bool,
}

/// Id and client of a request. Every route can extract it as `Extension<RequestContext>`; an upgraded
/// connection keeps it.
#[derive(Debug, Clone)]
pub struct RequestContext {
    pub(super) id: Arc<str>,
    pub(super) client: ClientAddress,
    pub(super) listener: &'static str,
    pub(super) metrics: HttpMetrics,
    pub(super) dialect: Dialect,
}

impl RequestContext {
    /// The request id, as in the log, in `x-request-id` and in the body of an error.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The client that sent the request.
    #[must_use]
    pub fn client(&self) -> ClientAddress {
        self.client
    }

    /// Counts a failure, logs it, and returns the body for the client. Internal errors are logged as errors,
    /// others at debug level. The guard reports responses that are a [`Failure`]; sockets and event streams
    /// call this for failures after their response has begun.
    #[must_use]
    pub fn report(&self, failure: &Failure) -> ErrorBody {
        let mut body = failure.body(Some(&self.id));
        body.error = self.dialect.has_error_field.then(|| body.message.clone());
        self.metrics.failed(self.listener, failure, body.code);
        let (listener, request_id, code) = (self.listener, &*self.id, body.code);
        if let Failure::Internal(error) = failure {
            tracing::error!(
                listener,
                request_id,
                error = &**error as &(dyn Error + 'static),
                "request {request_id} failed: {error}"
            );
        } else {
            tracing::debug!(listener, request_id, code, "request {request_id} was refused: {}", body.message);
        }
        body
    }
}
