//! `quipu archive`: what the archive holds, what it costs, and how far it has come.

mod status;
mod view;
mod windows;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::Context;
use view::View;

/// What the archive holds, and what it costs.
#[derive(Debug, Subcommand)]
pub(super) enum Archive {
    /// Totals, bytes per event and sighting, growth, relays and what is proven of them, candidates, journals.
    ///
    /// Events and sightings are counted by their projections (`kind_totals`, `relay_totals`; seconds behind) less what was erased, which is exact and
    /// takes no longer in a large archive. Bytes are those of the files: all partitions with their indexes and oversized values
    /// (`pg_total_relation_size`), divided by that count. Empty months count too, so a small archive looks dear. Bytes a day are the events and
    /// sightings of the last seven days, from `minute_totals`, at what one costs now.
    Status(View),
    /// List what is known to be missing: windows in which a relay holds more than it gives.
    Gaps {
        /// Of this relay alone.
        #[arg(long, value_name = "URL")]
        relay: Option<String>,
        /// One JSON object a gap.
        #[arg(long)]
        json: bool,
    },
    /// Show which windows of a relay's time line are proven complete, which are known gaps, and which were not asked for yet.
    Coverage {
        /// Its URL.
        #[arg(long, value_name = "URL")]
        relay: String,
        #[command(flatten)]
        view: View,
    },
}

impl Archive {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        match self {
            Self::Status(view) => status::run(context, view).await,
            Self::Gaps { relay, json } => windows::gaps(context, relay.as_deref(), json).await,
            Self::Coverage { relay, view } => windows::coverage(context, &relay, view).await,
        }
    }
}
