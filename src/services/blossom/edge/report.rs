//! Reports about blobs (BUD-09). They are stored for the operator and change nothing by themselves.

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::BlossomState;
use super::refusal::Refused;
use crate::http::{Failure, RequestContext};
use crate::services::blossom::command::BlobCommand;
use crate::services::blossom::decide::report::read_report;
use crate::services::blossom::read;

/// Largest report, bytes. It is kept once for each blob that it names.
const REPORT_BYTES_MAX: usize = 8 * 1024;

pub(super) async fn report(State(state): State<BlossomState>, request: Request) -> Result<Response, Failure> {
    let answer = state.report(request).await;
    answer.map_err(|refused| state.refuse(refused))
}

impl BlossomState {
    async fn report(&self, request: Request) -> Result<Response, Refused> {
        let (head, body) = request.into_parts();
        self.refuse_other_pages(&head.headers)?;
        if let Some(context) = head.extensions.get::<RequestContext>()
            && !self.limits().admits_report(context.client().address)
        {
            return Err(Refused::too_many("too many reports from this address"));
        }
        let body = to_bytes(body, REPORT_BYTES_MAX).await.map_err(|_| {
            let message = format!("the report did not arrive, or has more than {REPORT_BYTES_MAX} bytes");
            Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
        })?;
        let json = std::str::from_utf8(&body).unwrap_or_default();
        let mut report =
            read_report(json).map_err(|bad| Refused::field("bad_report", "body", bad.to_string()))?;
        // Only reports about blobs that are known are kept: otherwise any stranger could fill the journal.
        let mut known = Vec::new();
        for (sha256, kind) in report.blobs {
            if read::look_up(&self.parts().pools, &sha256).await?.blob.is_some() {
                known.push((sha256, kind));
            }
        }
        if known.is_empty() {
            return Err(Refused::absent());
        }
        report.blobs = known;
        self.parts().journal.append(BlobCommand::Report(report)).await?;
        Ok(StatusCode::OK.into_response())
    }
}
