//! `quipu archive gaps` and `quipu archive coverage`: what is missing, and what is proven.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::{Context, output};
use crate::base::{Clock as _, RelayUrl, SystemClock};
use crate::services::archive::decide::unproven;
use crate::services::archive::event::Window;
use crate::services::archive::read::{self, Gap};
use crate::store::{DoorSizes, Doors};

/// Gaps read at once.
const PAGE: i64 = 1_000;

fn canonical(url: &str) -> Result<RelayUrl> {
    RelayUrl::parse(url).with_context(|| format!("`{url}`"))
}

pub(super) async fn gaps(context: &Context, relay: Option<&str>, json: bool) -> Result<ExitCode> {
    let relay = relay.map(canonical).transpose()?;
    let doors = Doors::open(&context.urls()?, DoorSizes::default())?;
    let mut after = (String::new(), i64::MIN);
    let mut shown = 0;
    loop {
        let only = relay.as_ref().map(RelayUrl::as_str);
        let page = read::gaps(&doors.read, only, (&after.0, after.1), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = (last.relay_url.clone(), last.since);
        shown += page.len();
        show_gaps(&page, json)?;
    }
    if shown == 0 && !json {
        eprintln!("no gap is known; what is not proven yet either is in `quipu archive coverage --relay URL`");
    }
    doors.close().await;
    Ok(ExitCode::SUCCESS)
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

pub(super) async fn coverage(context: &Context, relay: &str, json: bool) -> Result<ExitCode> {
    let url = canonical(relay)?;
    let doors = Doors::open(&context.urls()?, DoorSizes::default())?;
    if read::relay_number(&doors.read, url.as_str()).await?.is_none() {
        bail!("{url} is not known: `quipu relays list` shows those that are");
    }
    let proven = read::proven_windows(&doors.read, url.as_str()).await?;
    let gaps = read::gaps(&doors.read, Some(url.as_str()), (url.as_str(), i64::MIN), PAGE).await?;
    let since = i64::try_from(context.configuration.settings.services.synchronizer.since_unix_s)?;
    let mut known = proven.clone();
    known.extend(gaps.iter().filter_map(|gap| Window::new(gap.since, gap.until)));
    let open = Window::new(since, SystemClock.now().timestamp())
        .map_or_else(Vec::new, |wanted| unproven(wanted, &known));
    if json {
        output::say(json!({ "relay": url, "proven": proven, "gaps": gaps, "open": open }));
    } else {
        let proven = proven.iter().map(|window| ("proven", *window, ""));
        let open = open.iter().map(|window| ("not asked yet", *window, ""));
        let gaps = gaps
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
    doors.close().await;
    Ok(ExitCode::SUCCESS)
}
