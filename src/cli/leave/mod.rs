//! `quipu erase` and `quipu retention`: the two commands that remove stored events, jobs and blobs. Both leave a record in
//! `erasure`.

mod blobs;
mod jobs;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use chrono::NaiveDate;
use clap::{ArgGroup, Args};

use super::confirm::Confirm;
use super::export::public_key;
use super::{Context, output};
use crate::base::{Sha256, counted};
use crate::store::removal::{self, ErasureSubject, Month, PAST, Preview, RemovedRows};
use crate::telemetry::notice;

/// Characters of an event's content in a listing.
const CONTENT_CHARACTERS: usize = 60;

/// Erase an event, everything that a key signed, a job or a blob. A tombstone keeps events and blobs from being stored again.
/// Shows what would be removed and asks first.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("subject").args(["event", "pubkey", "job", "blob"]).required(true)))]
pub(super) struct Erase {
    /// The event's id: 64 hex digits, or note/nevent.
    #[arg(long, value_name = "ID", value_parser = event_id)]
    event: Option<[u8; 32]>,
    /// A public key, in hex or npub.
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    pubkey: Option<[u8; 32]>,
    /// With --pubkey: only events up to this `created_at` (unix seconds). Later events are kept, and further
    /// ones are accepted.
    #[arg(long, value_name = "SECONDS", requires = "pubkey", conflicts_with_all = ["event", "job", "blob"])]
    until: Option<i64>,
    /// The number of a job that is completed, dead or cancelled. Its outputs are deleted, and its source if no
    /// other job names it.
    #[arg(long, value_name = "ID")]
    job: Option<i64>,
    /// The SHA-256 of a blob, 64 hex digits. Its copies are deleted at all upstreams, and it stays banned.
    #[arg(long, value_name = "SHA256")]
    blob: Option<Sha256>,
    /// With --job or --blob: leave its files or copies where they are.
    #[arg(long, conflicts_with_all = ["event", "pubkey"])]
    keep_files: bool,
    /// The reason. It is recorded with the removal.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    confirm: Confirm,
    /// Print one JSON object: the numbers of removed rows; with --dry-run of those that would be removed, and
    /// the first ten events, the keys of the job's files, or the places of the blob's copies.
    #[arg(long)]
    json: bool,
}

fn event_id(text: &str) -> Result<[u8; 32], String> {
    nostr_sdk::EventId::parse(text).map(nostr_sdk::EventId::to_bytes).map_err(|e| e.to_string())
}

impl Erase {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        if self.reason.trim().is_empty() {
            bail!("--reason: an erasure is recorded with its reason, which must not be empty");
        }
        let subject = match (self.event, self.pubkey, self.job) {
            (Some(id), ..) => ErasureSubject::Event(id),
            (None, Some(key), _) => ErasureSubject::Pubkey(key, self.until.unwrap_or(i64::MAX)),
            (None, None, Some(job)) => return self.erase_job(context, job).await,
            (None, None, None) => {
                let Some(blob) = self.blob else { bail!("--event, --pubkey, --job or --blob is needed") };
                return self.erase_blob(context, blob).await;
            }
        };
        let urls = context.urls()?;
        let owner = urls.owner()?;
        if !self.confirm.yes {
            let preview = removal::preview(owner, subject).await?;
            self.show(&preview)?;
            if !self.confirm.decide(&preview.holds.to_string()).await? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        let left = removal::erase(owner, subject, self.reason.trim()).await?;
        if self.json {
            output::say(serde_json::to_string(&left)?);
        } else if left == RemovedRows::default() {
            output::say(self.nothing_stored("was"));
        } else {
            output::say(format_args!("erased: {left}; a tombstone keeps them away"));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The sentence for an erasure that removes no row. `verb` is "is" before it and "was" after it.
    fn nothing_stored(&self, verb: &str) -> String {
        let (subject, kept_away) = match (self.event, self.until) {
            (Some(_), _) => ("under this id", "the event"),
            (None, None) => ("of this key", "its events"),
            (None, Some(_)) => ("of this key up to that time", "these events"),
        };
        format!(
            "nothing {verb} stored {subject}; the erasure's tombstone keeps {kept_away} from being stored later"
        )
    }

    fn show(&self, preview: &Preview) -> Result<()> {
        if self.json && self.confirm.dry_run {
            output::say(serde_json::to_string(preview)?);
            return Ok(());
        }
        if preview.holds == RemovedRows::default() {
            notice(self.nothing_stored("is"));
            return Ok(());
        }
        let rows = preview.first.iter().map(|event| {
            let content = event.content.as_deref().unwrap_or_default();
            let content = output::one_line(content, CONTENT_CHARACTERS);
            let time = output::instant(event.created_at);
            [event.id.clone(), event.kind.to_string(), event.pubkey.clone(), time, content]
        });
        // Standard output holds only the result when --json is given.
        notice(output::table(["id", "kind", "author", "created at, UTC", "content"], rows));
        let shown = i64::try_from(preview.first.len())?;
        if preview.holds.events > shown {
            notice(format_args!("and {} more", preview.holds.events - shown));
        }
        Ok(())
    }
}

fn named_months(months: &[Month]) -> String {
    counted(months.len(), "month", "months")
}

/// Drop whole months of events, or whole partitions of jobs, leaving a record. Lists them and asks first.
#[derive(Debug, Args)]
pub(super) struct Retention {
    /// Months that end before this one are dropped; of jobs, partitions whose newest entry is older.
    #[arg(long, value_name = "YYYY-MM", value_parser = month)]
    before: NaiveDate,
    /// Drop jobs instead of events: partitions of a million numbers whose jobs are all completed, dead or
    /// cancelled.
    #[arg(long)]
    jobs: bool,
    /// The reason. It is recorded with the removal.
    #[arg(long, value_name = "TEXT", default_value = "retention")]
    reason: String,
    #[command(flatten)]
    confirm: Confirm,
    /// Print one JSON object for each month or partition.
    #[arg(long)]
    json: bool,
}

fn month(text: &str) -> Result<NaiveDate, String> {
    NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").map_err(|_| "expected YYYY-MM".to_owned())
}

/// A month as listings name it.
fn named(month: NaiveDate) -> String {
    if month == PAST { "before 2020-11".to_owned() } else { month.format("%Y-%m").to_string() }
}

impl Retention {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let urls = context.urls()?;
        let owner = urls.owner()?;
        if self.jobs {
            return self.drop_jobs(owner).await;
        }
        let months = removal::months_before(owner, self.before).await?;
        self.show(&months)?;
        if months.is_empty() {
            notice(format_args!(
                "no month before {} holds events: nothing to drop",
                self.before.format("%Y-%m")
            ));
            return Ok(ExitCode::SUCCESS);
        }
        if !self.confirm.decide(&named_months(&months)).await? {
            return Ok(ExitCode::SUCCESS);
        }
        let bar = output::count_bar(months.len() as u64, "month", "months");
        for month in &months {
            removal::drop_month(owner, month.month, &self.reason)
                .await
                .with_context(|| format!("month {}", named(month.month)))?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        notice(format_args!("dropped: {}; each left a record in `erasure`", named_months(&months)));
        Ok(ExitCode::SUCCESS)
    }

    fn show(&self, months: &[Month]) -> Result<()> {
        if self.json {
            for month in months {
                output::say(serde_json::to_string(month)?);
            }
            return Ok(());
        }
        let rows = months
            .iter()
            .map(|m| [named(m.month), m.holds.events.to_string(), m.holds.sightings.to_string()]);
        // Not a listing: a closed pipe must not keep months from being dropped.
        output::say(output::table(["month", "events", "sightings"], rows));
        Ok(())
    }
}
