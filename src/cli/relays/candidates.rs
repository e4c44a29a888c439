//! `quipu relays list --candidates`: URLs that wait for the validator.

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Context, output};
use crate::services::archive::read::{self, CandidateRow};
use crate::telemetry::notice;

/// Candidates read at a time.
const PAGE: i64 = 1_000;

/// Lists the candidates, ordered by URL.
pub(super) async fn list(context: &Context, json: bool) -> Result<ExitCode> {
    let pools = context.pools_to_read().await?;
    let mut after = String::new();
    let mut shown = 0;
    let line = output::count_line("candidate", "candidates");
    loop {
        let page = read::candidate_rows(&pools.read, &after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.url);
        shown += page.len();
        line.inc(page.len() as u64);
        line.suspend(|| show(&page, json))?;
    }
    line.finish_and_clear();
    if shown == 0 && !json {
        notice("no candidates: every URL that events and lists have named so far was tried");
    }
    pools.close().await;
    Ok(ExitCode::SUCCESS)
}

fn show(page: &[CandidateRow], json: bool) -> Result<()> {
    if json {
        for candidate in page {
            output::list(serde_json::to_string(candidate)?)?;
        }
        return Ok(());
    }
    let rows = page.iter().map(|candidate| {
        let next =
            candidate.next_try_at.map_or_else(|| "soon".to_owned(), |at| at.format("%F %T").to_string());
        let reason = candidate.last_reason.clone().unwrap_or_else(|| "-".to_owned());
        let source = candidate.source.clone();
        [candidate.url.clone(), candidate.network.clone(), source, candidate.tries.to_string(), next, reason]
    });
    output::list(output::table(["candidate", "network", "source", "tries", "next try", "last failure"], rows))
}
