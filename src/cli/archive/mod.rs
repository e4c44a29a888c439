//! `quipu archive`: the content, size and progress of the archive.

mod status;
pub(super) mod view;
mod windows;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::Context;
use view::View;

/// Show the content, size and progress of the archive.
#[derive(Debug, Subcommand)]
pub(super) enum Archive {
    /// Show totals, bytes per event and sighting, growth, relays and their proven windows, candidates,
    /// journals.
    ///
    /// The numbers of events and sightings come from projections (`kind_totals`, `relay_totals`; some seconds
    /// behind) minus erased rows, so they are exact and take no longer in a large archive. Bytes per event
    /// are the size of all partitions with their indexes and oversized values (`pg_total_relation_size`),
    /// divided by that number. Empty months have a size too, so the figure is high in a small archive. Bytes
    /// a day are the events and sightings of the last seven days, from `minute_totals`, times the present
    /// bytes per row.
    Status(View),
    /// List known gaps: windows in which a relay holds more events than it returns.
    Gaps {
        /// Only the gaps of this relay.
        #[arg(long, value_name = "URL")]
        relay: Option<String>,
        /// Print one JSON object for each gap.
        #[arg(long)]
        json: bool,
    },
    /// Show which windows of a relay's time line are proven complete, which are known gaps, and which were
    /// not requested yet.
    Coverage {
        /// The relay's URL.
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
