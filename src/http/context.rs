//! What a route may know of the request beside the request itself.

use std::error::Error;
use std::sync::Arc;

use super::client::ClientAddress;
use super::metrics::HttpMetrics;
use super::{ErrorBody, Failure};

/// A request's id and client. Every route can take it as `Extension<RequestContext>`; an upgraded connection keeps it.
#[derive(Debug, Clone)]
pub struct RequestContext {
    pub(super) id: Arc<str>,
    pub(super) client: ClientAddress,
    pub(super) listener: &'static str,
    pub(super) counted: HttpMetrics,
}

impl RequestContext {
    /// The id in the log, in `x-request-id` and in the body of an error.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Who sent the request.
    #[must_use]
    pub fn client(&self) -> ClientAddress {
        self.client
    }

    /// Counts a failure, logs it if it is internal, and returns what the client is told. Answers that are a [`Failure`] are
    /// reported by the guard; sockets and event streams call this for what fails after their answer has begun.
    #[must_use]
    pub fn report(&self, failure: &Failure) -> ErrorBody {
        let body = failure.body(Some(&self.id));
        self.counted.failed(self.listener, failure, body.code);
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
