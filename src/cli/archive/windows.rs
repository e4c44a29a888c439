//! `quipu archive gaps` and `quipu archive coverage`: known gaps, and proven windows.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use indicatif::{HumanCount, ProgressBar};
use serde::Serialize;

use super::View;
use crate::base::{Clock as _, RelayUrl, SystemClock};
use crate::cli::{Context, output};
use crate::services::archive::decide::unproven;
use crate::services::archive::event::Window;
use crate::services::archive::read::{self, Gap};
use crate::store::{Error, Pools};
use crate::telemetry::notice;

/// Gaps in one query.
const PAGE: i64 = 1_000;

fn canonical(url: &str) -> Result<RelayUrl> {
    RelayUrl::parse(url).with_context(|| format!("`{url}`"))
}

pub(super) async fn gaps(context: &Context, relay: Option<&str>, json: bool) -> Result<ExitCode> {
    let relay = relay.map(canonical).transpose()?;
    let pools = context.pools_to_read().await?;
    let mut after = (String::new(), i64::MIN);
    let mut shown = 0;
    let line = output::count_line("gap", "gaps");
    loop {
        let only = relay.as_ref().map(RelayUrl::as_str);
        let page = read::gaps(&pools.read, only, (&after.0, after.1), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = (last.relay_url.clone(), last.since);
        shown += page.len();
        line.inc(page.len() as u64);
        line.suspend(|| show_gaps(&page, json))?;
    }
    line.finish_and_clear();
    if shown == 0 && !json {
        notice(format_args!(
            "no gap is known; `quipu archive coverage --relay URL` also shows what was not requested yet"
        ));
    }
    pools.close().await;
    Ok(ExitCode::SUCCESS)
}

fn show_gaps(page: &[Gap], json: bool) -> Result<()> {
    if json {
        for gap in page {
            output::list(serde_json::to_string(gap)?)?;
        }
        return Ok(());
    }
    let rows = page.iter().map(|gap| {
        let (since, until) = (output::instant(gap.since), output::instant(gap.until));
        [gap.relay_url.clone(), since, until, gap.reason.clone()]
    });
    output::list(output::table(["relay", "from", "to", "reason"], rows))
}

pub(super) async fn coverage(context: &Context, relay: &str, view: View) -> Result<ExitCode> {
    let url = canonical(relay)?;
    let pools = context.pools_to_read().await?;
    if read::relay_number(&pools.read, url.as_str()).await?.is_none() {
        bail!("{url} is not known: `quipu relays list` shows those that are");
    }
    let since = i64::try_from(context.configuration.settings.services.synchronizer.since_unix_s)?;
    let mut bars = None;
    let ask = async |pools: &Pools| Coverage::of(&url, since, pools).await;
    let draw = |coverage: &Coverage| bars.get_or_insert_with(Bars::new).set(coverage);
    view.show(pools, ask, Coverage::print, draw).await?;
    Ok(ExitCode::SUCCESS)
}

/// A relay's time line from `services.synchronizer.since_unix_s` until now.
#[derive(Debug, Serialize)]
struct Coverage {
    relay: RelayUrl,
    /// Archived completely, oldest first.
    proven: Vec<Window>,
    /// Known to be incomplete, oldest first.
    gaps: Vec<Gap>,
    /// Not requested yet, newest first.
    open: Vec<Window>,
}

impl Coverage {
    async fn of(url: &RelayUrl, since: i64, pools: &Pools) -> Result<Self, Error> {
        let (proven, gaps) = read::time_line(&pools.read, url.as_str()).await?;
        let mut known = proven.clone();
        known.extend(gaps.iter().filter_map(|gap| Window::new(gap.since, gap.until)));
        let open = Window::new(since, SystemClock.now().timestamp())
            .map_or_else(Vec::new, |wanted| unproven(wanted, &known));
        Ok(Self { relay: url.clone(), proven, gaps, open })
    }

    fn print(&self) -> Result<()> {
        let proven = self.proven.iter().map(|window| ("proven", *window, ""));
        let open = self.open.iter().map(|window| ("not asked yet", *window, ""));
        let gaps = self
            .gaps
            .iter()
            .filter_map(|gap| Some(("gap", Window::new(gap.since, gap.until)?, gap.reason.as_str())));
        let mut rows: Vec<_> = proven.chain(open).chain(gaps).collect();
        rows.sort_by_key(|row| row.1);
        let rows = rows.into_iter().map(|(state, window, reason)| {
            let (from, to) = (output::instant(window.since), output::instant(window.until));
            [from, to, state.to_owned(), reason.to_owned()]
        });
        output::list(output::table(["from", "to", "state", "reason"], rows))
    }
}

/// Bars that show how many days of the time line are proven.
struct Bars {
    proven: ProgressBar,
    newest: ProgressBar,
    counts: ProgressBar,
}

impl Bars {
    fn new() -> Self {
        Self {
            proven: output::part_bar("days proven"),
            newest: output::text_line("newest window"),
            counts: output::clock_line(),
        }
    }

    fn set(&self, coverage: &Coverage) {
        let proven = days(&coverage.proven);
        let gaps: Vec<Window> =
            coverage.gaps.iter().filter_map(|gap| Window::new(gap.since, gap.until)).collect();
        output::fill(&self.proven, proven, proven + days(&coverage.open) + days(&gaps));
        let span = |window: &Window| {
            format!("{} to {}", output::instant(window.since), output::instant(window.until))
        };
        self.newest.set_message(coverage.proven.last().map_or_else(|| "none yet".to_owned(), span));
        let windows = HumanCount(coverage.proven.len() as u64);
        let gaps = HumanCount(gaps.len() as u64);
        self.counts.set_message(format!("proven windows: {windows}, known gaps: {gaps}"));
    }
}

/// The total length of windows that do not overlap, in whole days.
fn days(windows: &[Window]) -> u64 {
    let seconds: i64 = windows.iter().map(|window| window.until.saturating_sub(window.since) + 1).sum();
    u64::try_from(seconds / 86_400).unwrap_or(0)
}
