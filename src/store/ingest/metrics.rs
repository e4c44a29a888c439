//! Metrics of the intake, and the alarm before the numbers for events run out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::journal::Ingested;
use crate::base::nostr_event::{Refusal, Refusals};
use crate::telemetry::{Label, describe_metrics};

/// Number of slots from which the numbers of events are drawn: `quipu_slots_max()` + 1.
const SLOTS: u64 = 1 << 45;

/// Percentage of used slots from which each further percent is logged as an error. At 1,000 commits a second
/// with 11 events each, the remaining slots last ten years.
const ALARM_PERCENT: u64 = 90;

const REASON: Label = Label::listed("reason", &[&Refusal::NAMES]);

describe_metrics! { Process;
    OFFERED: Counter = "quipu_ingest_offered_events_total" [], "Events offered with a correct id";
    STORED: Counter = "quipu_ingest_stored_events_total" [], "Events stored";
    REFUSED: Counter = "quipu_ingest_refused_events_total" [REASON], "Events refused";
    NUMBERS_USED: Gauge = "quipu_ingest_event_numbers_used_ratio" [],
        "Share of the numbers for events that are used, as of this process's last batch with new events; at 1 \
         no further event can be stored";
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Events offered, stored and refused. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct IngestMetrics {
    offered: Counter,
    stored: Counter,
    refused: Family<Reason, Counter>,
    slots_used: Gauge<f64, AtomicU64>,
    /// The percentage that was logged last; 0 for none.
    alarmed: Arc<AtomicU64>,
}

impl IngestMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        OFFERED.register(registry, self.offered.clone());
        STORED.register(registry, self.stored.clone());
        REFUSED.register(registry, self.refused.clone());
        NUMBERS_USED.register(registry, self.slots_used.clone());
    }

    pub(super) fn offered(&self, events: usize, refused: &Refusals) {
        self.offered.inc_by(events as u64);
        for (reason, count) in refused.iter() {
            self.refused.get_or_create(&Reason { reason }).inc_by(u64::from(count));
        }
    }

    pub(super) fn stored(&self, answer: Ingested) {
        self.stored.inc_by(u64::from(answer.stored));
        let Some(slot) = answer.newest_slot.and_then(|slot| u64::try_from(slot).ok()) else { return };
        #[expect(clippy::cast_precision_loss, reason = "a share, and far below 2^52")]
        self.slots_used.set(slot as f64 / SLOTS as f64);
        let percent = slot.saturating_mul(100) / SLOTS;
        if percent >= ALARM_PERCENT && self.alarmed.fetch_max(percent, Ordering::Relaxed) < percent {
            tracing::error!(
                percent,
                slot,
                "{percent} % of the numbers for events are used; at 100 % no further event can be stored"
            );
        }
    }
}
