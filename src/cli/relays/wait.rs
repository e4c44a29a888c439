//! `quipu relays add --wait`: shows the progress of the added relays.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::base::counted;
use crate::cli::output;
use crate::services::archive::read::{self, RelaySteps};
use crate::store::Pools;
use crate::telemetry::notice;

/// Pause between two queries.
const LOOK: Duration = Duration::from_millis(200);

/// Most relays of `services.synchronizer.only_relays` that a message names.
const NAMED_MAX: usize = 3;

/// The progress of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    /// It is known, and nothing has been tried yet.
    Added,
    /// The monitor has checked it.
    Checked,
    /// A session with it has begun.
    Dialled,
    /// Its first event is committed.
    FirstEvent,
    /// Everything that it holds is archived.
    Complete,
    /// It cannot be archived, for this reason.
    Failed(&'a str),
}

impl<'a> Step<'a> {
    fn of(relay: &'a RelaySteps) -> Self {
        let failure = relay.outcome.as_deref().filter(|outcome| !PASSING.contains(outcome));
        match failure {
            _ if relay.is_retired => Self::Failed("retired: `quipu relays restore` takes it up again"),
            _ if relay.refused_reason.is_some() => {
                Self::Failed(relay.refused_reason.as_deref().unwrap_or_default())
            }
            _ if relay.is_caught_up => Self::Complete,
            Some(reason) if relay.is_dialled => Self::Failed(reason),
            _ if relay.is_dialled && relay.has_events => Self::FirstEvent,
            _ if relay.is_dialled => Self::Dialled,
            _ if relay.is_checked => Self::Checked,
            _ => Self::Added,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Checked => "checked",
            Self::Dialled => "dialled",
            Self::FirstEvent => "first_event",
            Self::Complete => "complete",
            Self::Failed(_) => "failed",
        }
    }

    const fn is_end(self) -> bool {
        matches!(self, Self::Complete | Self::Failed(_))
    }
}

/// Outcomes of sessions that are not failures: the relay is connected to again at once.
const PASSING: [&str; 4] = ["ok", "stopped", "narrowed", "lease_lost"];

/// Waits until each relay is archived or has failed, for `wait_max` at most. The exit code says whether all
/// are archived.
pub(super) async fn until_archived(
    pools: &Pools,
    urls: Vec<String>,
    wait_max: Duration,
    json: bool,
) -> Result<ExitCode> {
    let begun = Instant::now();
    let line = output::clock_line();
    let mut told: HashMap<String, (&'static str, i64)> = HashMap::new();
    loop {
        let relays = read::relay_steps(&pools.session, &urls).await?;
        let (mut ended, mut failed, mut events) = (0, 0, 0);
        for relay in &relays {
            let step = Step::of(relay);
            ended += usize::from(step.is_end());
            failed += usize::from(matches!(step, Step::Failed(_)));
            events += relay.events;
            let now = (step.word(), relay.events);
            let is_news =
                told.get(&relay.url).is_none_or(|last| if json { *last != now } else { last.0 != now.0 });
            if is_news {
                line.suspend(|| say(relay, step, begun.elapsed(), json));
                told.insert(relay.url.clone(), now);
            }
        }
        line.set_message(format!(
            "{ended} of {} archived or failed, {}",
            counted(relays.len(), "relay", "relays"),
            counted(events, "event", "events")
        ));
        if ended == relays.len() || begun.elapsed() >= wait_max {
            line.finish_and_clear();
            if ended < relays.len() {
                notice(format_args!(
                    "{} of {} not archived after {} s: the rest is still being read, or no synchronizer that reaches the \
                     network runs; `quipu relays show URL` and `quipu archive status` say more",
                    relays.len() - ended,
                    counted(relays.len(), "relay", "relays"),
                    wait_max.as_secs()
                ));
            }
            let is_good = failed == 0 && ended == relays.len();
            return Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Reports the relays that the running instance does not dial, because it dials `only` others.
pub(super) fn say_left_out(urls: &[String], only: &[String], json: bool) {
    let others =
        if only.len() <= NAMED_MAX { only.join(", ") } else { counted(only.len(), "other", "others") };
    for url in urls {
        let reason = format!(
            "the running instance dials only {others} (services.synchronizer.only_relays, which `quipu up --sample` sets)"
        );
        if json {
            output::say(
                json!({ "url": url, "step": "failed", "events": 0, "reason": reason, "elapsed_ms": 0 }),
            );
        } else {
            output::say(format_args!("{url}  not waited for: {reason}"));
        }
    }
}

fn say(relay: &RelaySteps, step: Step<'_>, elapsed: Duration, json: bool) {
    let reason = if let Step::Failed(reason) = step { Some(reason) } else { None };
    if json {
        output::say(json!({
            "url": relay.url, "step": step.word(), "events": relay.events, "reason": reason, "elapsed_ms": elapsed.as_millis(),
        }));
        return;
    }
    let words = match step {
        Step::FirstEvent => "first event".to_owned(),
        Step::Complete => format!("complete, {}", counted(relay.events, "event", "events")),
        Step::Failed(reason) => format!("failed: {reason}"),
        other => other.word().to_owned(),
    };
    output::say(format_args!("{}  {words}  ({:.1} s)", relay.url, elapsed.as_secs_f64()));
}
