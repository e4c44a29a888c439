//! What a session delivered: counted, logged and recorded.

use serde_json::json;
use tokio::time::Instant;

use super::crawl::Crawl;
use crate::base::RelayUrl;
use crate::base::nostr_event::Refusals;
use crate::services::archive::command::RelayCommand;
use crate::store::ingest::PageOutcome;
use crate::store::{self, Relay};

/// Counts of a session since its last report.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) stored: u64,
    /// Events that were stored before.
    pub(super) known: u64,
    pub(super) refused: Refusals,
}

impl Report {
    pub(super) fn add(&mut self, outcome: &PageOutcome) {
        self.stored += u64::from(outcome.stored);
        self.known += u64::from(outcome.known);
        self.refused.merge(&outcome.refused);
    }
}

impl Crawl {
    /// Logs and records what a session delivered since its last report.
    pub(super) async fn record_report(
        &self,
        relay: Relay,
        url: &RelayUrl,
        report: Report,
    ) -> Result<(), store::Error> {
        if report.stored > 0 {
            tracing::info!(relay.url = %url, events = report.stored, known = report.known, "{url}: {} new events", report.stored);
        }
        let refused = self.unrecorded().add(relay.0, &report.refused, Instant::now());
        if let Some(refused) = refused {
            let detail = json!({ "what": "refused", "reasons": refused.to_json() });
            self.parts.relays.append(RelayCommand::Observe { relay, detail }).await?;
        }
        Ok(())
    }
}
