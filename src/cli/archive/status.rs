//! `quipu archive status`: tables, or bars that move.

use std::process::ExitCode;

use anyhow::Result;
use indicatif::{HumanBytes, HumanCount, ProgressBar};

use super::View;
use crate::cli::{Context, output};
use crate::services::archive::read::{self, RelayCount, Status};
use crate::store::Pools;

pub(super) async fn run(context: &Context, view: View) -> Result<ExitCode> {
    let pools = context.pools_to_read().await?;
    let mut bars = None;
    let ask = async |pools: &Pools| read::status(&pools.read).await;
    let draw = |status: &Status| bars.get_or_insert_with(|| Bars::new(status)).set(status);
    view.show(pools, ask, print, draw).await?;
    Ok(ExitCode::SUCCESS)
}

/// Bars for the relays that are checked, readable and proven, and lines for the counts that grow.
struct Bars {
    checked: ProgressBar,
    readable: ProgressBar,
    proven: ProgressBar,
    events: ProgressBar,
    sightings: ProgressBar,
    rest: ProgressBar,
}

impl Bars {
    fn new(first: &Status) -> Self {
        Self {
            checked: output::part_bar("relays checked"),
            readable: output::part_bar("relays readable"),
            proven: output::part_bar("relays with proven windows"),
            events: output::growth_line("events", of(first.events)),
            sightings: output::growth_line("sightings", of(first.sightings)),
            rest: output::clock_line(),
        }
    }

    fn set(&self, status: &Status) {
        let sum = |count: fn(&RelayCount) -> i64| of(status.relays.iter().map(count).sum());
        let known = sum(|relays| relays.known);
        for (bar, part) in [
            (&self.checked, sum(|relays| relays.checked)),
            (&self.readable, sum(|relays| relays.readable)),
            (&self.proven, sum(|relays| relays.with_proofs)),
        ] {
            output::fill(bar, part, known);
        }
        self.events.set_position(of(status.events));
        self.sightings.set_position(of(status.sightings));
        let waiting = status.candidates.iter().map(|candidates| candidates.waiting).sum();
        self.rest.set_message(format!(
            "known gaps: {}, candidates: {}, database: {}",
            HumanCount(of(status.known_gaps)),
            HumanCount(of(waiting)),
            bytes(status.database_bytes)
        ));
    }
}

/// A count of the database, which is never negative.
fn of(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

fn print(status: &Status) -> Result<()> {
    output::list(output::table(["", "now", "in the last day", "bytes", "bytes each"], totals(status)))?;
    output::list("")?;
    output::list(output::table(["growth", "a day", ""], growth(status)))?;
    output::list("")?;
    let relays = status.relays.iter().map(|r| {
        [
            r.network.clone(),
            r.known.to_string(),
            r.checked.to_string(),
            r.readable.to_string(),
            r.with_events.to_string(),
            r.with_proofs.to_string(),
            r.with_gaps.to_string(),
            r.retired.to_string(),
        ]
    });
    let heading = [
        "relays",
        "known",
        "checked",
        "readable",
        "with events",
        "with proven windows",
        "with gaps",
        "retired",
    ];
    output::list(output::table(heading, relays))?;
    output::list("")?;
    if !status.candidates.is_empty() {
        let candidates = status
            .candidates
            .iter()
            .map(|c| [c.network.clone(), c.waiting.to_string(), c.failed.to_string()]);
        output::list(output::table(["candidates", "waiting", "failed so far"], candidates))?;
        output::list("")?;
    }
    let journals = status.journals.iter().map(|journal| [journal.name.clone(), bytes(journal.bytes)]);
    output::list(output::table(["journal", "bytes"], journals))
}

fn totals(status: &Status) -> [[String; 5]; 6] {
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
            "  of them by comparison".to_owned(),
            status.sightings_compared.to_string(),
            nothing(),
            nothing(),
            nothing(),
        ],
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

fn growth(status: &Status) -> [[String; 3]; 2] {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded for people, never negative"
    )]
    let day = status.bytes_per_day.map(|bytes| HumanBytes(bytes.max(0.0) as u64).to_string());
    let rate = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let span = match (status.events_per_day, status.growth_days) {
        (None, _) => "known an hour after the first event".to_owned(),
        (Some(_), days) if days < 2.0 => format!("from the last {:.1} hours", days * 24.0),
        (Some(_), days) => format!("from the last {days:.1} days"),
    };
    [
        ["events".to_owned(), rate(status.events_per_day.map(|events| format!("{events:.0}"))), span],
        ["bytes of events and sightings".to_owned(), rate(day), String::new()],
    ]
}

fn bytes(bytes: i64) -> String {
    HumanBytes(of(bytes)).to_string()
}
