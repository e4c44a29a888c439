//! `quipu archive gaps` and `quipu archive coverage`: what is missing, and what is proven.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use indicatif::{HumanCount, MultiProgress, ProgressBar};
use serde::Serialize;

use super::View;
use crate::base::{Clock as _, RelayUrl, SystemClock};
use crate::cli::{Context, output};
use crate::services::archive::decide::unproven;
use crate::services::archive::event::Window;
use crate::services::archive::read::{self, Gap};
use crate::store::{DoorSizes, Doors, Error};

/// Gaps read at once.
const PAGE: i64 = 1_000;

fn canonical(url: &str) -> Result<RelayUrl> {
    RelayUrl::parse(url).with_context(|| format!("`{url}`"))
}

pub(super) async fn gaps(context: &Context, relay: Option<&str>, json: bool) -> Result<ExitCode> {
    let relay = relay.map(canonical).transpose()?;
    let doors = Doors::open(&context.urls()?, DoorSizes::default())?;
    let mut pages = GapPages::of(relay.as_ref());
    let mut shown = 0;
    let line = output::count_line("gaps");
    while let Some(page) = pages.next(&doors).await? {
        shown += page.len();
        line.inc(page.len() as u64);
        line.suspend(|| show_gaps(&page, json))?;
    }
    line.finish_and_clear();
    if shown == 0 && !json {
        eprintln!(
            "no gap is known; what is not proven yet either is in `quipu archive coverage --relay URL`"
        );
    }
    doors.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Known gaps, a page at a time.
struct GapPages<'a> {
    only: Option<&'a str>,
    after: (String, i64),
}

impl<'a> GapPages<'a> {
    /// Of one relay, or of all.
    fn of(only: Option<&'a RelayUrl>) -> Self {
        Self { only: only.map(RelayUrl::as_str), after: (String::new(), i64::MIN) }
    }

    /// The next page; none at the end.
    async fn next(&mut self, doors: &Doors) -> Result<Option<Vec<Gap>>, Error> {
        let page = read::gaps(&doors.read, self.only, (&self.after.0, self.after.1), PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.after = (last.relay_url.clone(), last.since);
        Ok(Some(page))
    }
}

fn show_gaps(page: &[Gap], json: bool) -> Result<()> {
    if json {
        for gap in page {
            output::say(serde_json::to_string(gap)?);
        }
        return Ok(());
    }
    let rows = page.iter().map(|gap| {
        let (since, until) = (output::instant(gap.since), output::instant(gap.until));
        [gap.relay_url.clone(), since, until, gap.reason.clone()]
    });
    output::say(output::table(["relay", "from", "to", "reason"], rows));
    Ok(())
}

pub(super) async fn coverage(context: &Context, relay: &str, view: View) -> Result<ExitCode> {
    let url = canonical(relay)?;
    let doors = Doors::open(&context.urls()?, DoorSizes::default())?;
    if read::relay_number(&doors.read, url.as_str()).await?.is_none() {
        bail!("{url} is not known: `quipu relays list` shows those that are");
    }
    let since = i64::try_from(context.configuration.settings.services.synchronizer.since_unix_s)?;
    let mut bars = None;
    let draw = |coverage: &Coverage| bars.get_or_insert_with(Bars::new).set(coverage);
    let shown =
        view.show(&doors, async || Coverage::of(&url, since, &doors).await, Coverage::print, draw).await;
    doors.close().await;
    shown.map(|()| ExitCode::SUCCESS)
}

/// A relay's time line from the oldest second that is wanted until now.
#[derive(Debug, Serialize)]
struct Coverage {
    relay: RelayUrl,
    /// Archived completely, oldest first.
    proven: Vec<Window>,
    /// Known to be incomplete, oldest first.
    gaps: Vec<Gap>,
    /// Not asked for yet, newest first.
    open: Vec<Window>,
}

impl Coverage {
    async fn of(url: &RelayUrl, since: i64, doors: &Doors) -> Result<Self, Error> {
        let proven = read::proven_windows(&doors.read, url.as_str()).await?;
        let mut pages = GapPages::of(Some(url));
        let mut gaps = Vec::new();
        while let Some(page) = pages.next(doors).await? {
            gaps.extend(page);
        }
        let mut known = proven.clone();
        known.extend(gaps.iter().filter_map(|gap| Window::new(gap.since, gap.until)));
        let open = Window::new(since, SystemClock.now().timestamp())
            .map_or_else(Vec::new, |wanted| unproven(wanted, &known));
        Ok(Self { relay: url.clone(), proven, gaps, open })
    }

    fn print(&self) {
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
        output::say(output::table(["from", "to", "state", "reason"], rows));
    }
}

/// How much of the time line is settled, in seconds.
struct Bars {
    proven: ProgressBar,
    rest: ProgressBar,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        Self { proven: all.add(output::part_bar("days proven")), rest: all.add(output::clock_line()) }
    }

    fn set(&self, coverage: &Coverage) {
        let proven = days(&coverage.proven);
        let gaps =
            coverage.gaps.iter().filter_map(|gap| Window::new(gap.since, gap.until)).collect::<Vec<_>>();
        output::fill(&self.proven, proven, proven + days(&coverage.open) + days(&gaps));
        let newest = coverage.proven.last().map_or_else(
            || "nothing proven yet".to_owned(),
            |window| {
                format!("newest: {} to {}", output::instant(window.since), output::instant(window.until))
            },
        );
        let windows = HumanCount(coverage.proven.len() as u64);
        let gaps = HumanCount(coverage.gaps.len() as u64);
        self.rest.set_message(format!("proven windows: {windows}, known gaps: {gaps}, {newest}"));
    }
}

/// What windows that do not overlap amount to, in whole days.
fn days(windows: &[Window]) -> u64 {
    let seconds: i64 = windows.iter().map(|window| window.until.saturating_sub(window.since) + 1).sum();
    u64::try_from(seconds / 86_400).unwrap_or(0)
}
