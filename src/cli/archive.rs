//! `quipu archive`: what the archive holds, and what it costs.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use indicatif::HumanBytes;

use super::{Context, output, windows};
use crate::services::archive::read::{self, Status};
use crate::store::{DoorSizes, Doors};

/// What the archive holds, and what it costs.
#[derive(Debug, Subcommand)]
pub(super) enum Archive {
    /// Totals, bytes per event and sighting, growth, relays and what is proven of them, candidates, journals.
    ///
    /// Events and sightings are counted by their projections (`kind_totals`, `relay_totals`; seconds behind) less what was erased, which is exact and
    /// takes no longer in a large archive. Bytes are those of the files: all partitions with their indexes and oversized values
    /// (`pg_total_relation_size`), divided by that count. Empty months count too, so a small archive looks dear. Bytes a day are the events and
    /// sightings of the last seven days, from `minute_totals`, at what one costs now.
    Status {
        /// One JSON object; bytes and counts as numbers.
        #[arg(long)]
        json: bool,
    },
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
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
}

impl Archive {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        match self {
            Self::Status { json } => status(context, json).await,
            Self::Gaps { relay, json } => windows::gaps(context, relay.as_deref(), json).await,
            Self::Coverage { relay, json } => windows::coverage(context, &relay, json).await,
        }
    }
}

async fn status(context: &Context, json: bool) -> Result<ExitCode> {
    let doors = Doors::open(&context.urls()?, DoorSizes::default())?;
    let status = read::status(&doors.read).await?;
    doors.close().await;
    if json {
        output::say(serde_json::to_string(&status)?);
        return Ok(ExitCode::SUCCESS);
    }
    output::say(output::table(["", "now", "in the last day", "bytes", "bytes each"], totals(&status)));
    output::say("");
    output::say(output::table(["growth", "a day"], growth(&status)));
    output::say("");
    let relays = status.relays.iter().map(|r| {
        [
            r.network.clone(),
            r.known.to_string(),
            r.readable.to_string(),
            r.with_events.to_string(),
            r.with_proofs.to_string(),
            r.with_gaps.to_string(),
            r.retired.to_string(),
        ]
    });
    let heading =
        ["relays", "known", "readable", "with events", "with proven windows", "with gaps", "retired"];
    output::say(output::table(heading, relays));
    output::say("");
    if !status.candidates.is_empty() {
        let candidates = status
            .candidates
            .iter()
            .map(|c| [c.network.clone(), c.waiting.to_string(), c.failed.to_string()]);
        output::say(output::table(["candidates", "waiting", "failed so far"], candidates));
        output::say("");
    }
    let journals = status.journals.iter().map(|journal| [journal.name.clone(), bytes(journal.bytes)]);
    output::say(output::table(["journal", "bytes"], journals));
    Ok(ExitCode::SUCCESS)
}

fn totals(status: &Status) -> [[String; 5]; 5] {
    let each = |bytes: Option<f64>| bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.1}"));
    let row = |name: &str, now: i64, day: i64, size: i64, one: Option<f64>| {
        [name.to_owned(), now.to_string(), day.to_string(), bytes(size), each(one)]
    };
    let nothing = String::new;
    [
        row("events", status.events, status.events_last_day, status.events_bytes, status.bytes_per_event),
        row(
            "sightings",
            status.sightings,
            status.sightings_last_day,
            status.sightings_bytes,
            status.bytes_per_sighting,
        ),
        [
            "requests to vanish".to_owned(),
            format!("{}, {} honoured", status.vanish_requests, status.vanish_honoured),
            nothing(),
            nothing(),
            nothing(),
        ],
        ["known gaps".to_owned(), status.known_gaps.to_string(), nothing(), nothing(), nothing()],
        ["database".to_owned(), nothing(), nothing(), bytes(status.database_bytes), nothing()],
    ]
}

fn growth(status: &Status) -> [[String; 2]; 2] {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded for people, never negative"
    )]
    let day = status.bytes_per_day.map(|bytes| HumanBytes(bytes.max(0.0) as u64).to_string());
    [
        ["events".to_owned(), format!("{:.0}", status.events_per_day)],
        ["bytes of events and sightings".to_owned(), day.unwrap_or_else(|| "-".to_owned())],
    ]
}

fn bytes(bytes: i64) -> String {
    HumanBytes(u64::try_from(bytes).unwrap_or(0)).to_string()
}
