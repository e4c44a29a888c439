//! `quipu relays retire` and `restore`, and the text that listings show for a relay's state.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::{Opened, address, known};
use crate::cli::{Context, output};
use crate::services::archive::RelayJournal;
use crate::services::archive::command::RelayCommand;
use crate::services::archive::read::RelayRow;
use crate::store::Relay;

/// Changes the state of one relay.
#[derive(Debug, Args)]
pub(in crate::cli) struct Change {
    /// The relay's URL.
    #[arg(value_name = "URL")]
    url: String,
    /// The reason. It is recorded with the change.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Change {
    pub(super) async fn retire(self, context: Context) -> Result<ExitCode> {
        self.apply(context, true).await
    }

    pub(super) async fn restore(self, context: Context) -> Result<ExitCode> {
        self.apply(context, false).await
    }

    /// Records that the relay is retired or restored. Records nothing if it is in that state already.
    async fn apply(self, context: Context, retired: bool) -> Result<ExitCode> {
        let reason = self.reason.trim();
        if reason.is_empty() {
            bail!("--reason is empty: the reason is recorded with the change");
        }
        let url = address(&self.url)?;
        let opened = Opened::new(context).await?;
        let row = known(&opened.parts.pools, &url).await?.row;
        let is_new = row.retired_at.is_some() != retired;
        if is_new {
            let (relay, detail) = (Relay(row.number), json!({ "reason": reason }));
            let command = if retired {
                RelayCommand::Retire { relay, detail }
            } else {
                RelayCommand::Restore { relay, detail }
            };
            opened.parts.writer(RelayJournal).append(command).await?;
        }
        let word = match (retired, is_new) {
            (true, true) => "retired",
            (true, false) => "retired already",
            (false, true) => "restored",
            (false, false) => "was not retired",
        };
        if self.json {
            output::say(json!({ "url": url, "number": row.number, "retired": retired, "new": is_new }));
        } else {
            output::say(format_args!("{url}  {word}"));
        }
        opened.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

/// The state of a relay as text: retired, refused (with the reason), crawled, checked, dialled or never
/// dialled; then the result of its newest check.
pub(super) fn words(relay: &RelayRow) -> String {
    let state = match &relay.refused_reason {
        _ if relay.retired_at.is_some() => "retired".to_owned(),
        Some(reason) => return format!("refused: {reason}"),
        None if relay.is_crawled => "crawled".to_owned(),
        None if relay.readable.is_some() => "checked".to_owned(),
        None => match relay.last_session.as_deref() {
            Some(reason) if reason != "ok" => format!("dialled: {reason}"),
            _ if relay.is_dialled => "dialled".to_owned(),
            _ => "not dialled yet".to_owned(),
        },
    };
    match (relay.readable, &relay.open_failure) {
        (Some(true), _) => format!("{state}, readable"),
        (Some(false), Some(reason)) => format!("{state}, not readable: {reason}"),
        (Some(false), None) => format!("{state}, not readable"),
        (None, _) => state,
    }
}
