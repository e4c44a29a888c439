//! The confirmation that commands ask for before they remove something for good.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::telemetry::notice;

/// The flags that answer the question in advance.
#[derive(Debug, Args)]
pub(super) struct Confirm {
    /// Remove without asking.
    #[arg(long)]
    pub(super) yes: bool,
    /// Only show what would be removed.
    #[arg(long, conflicts_with = "yes")]
    pub(super) dry_run: bool,
}

impl Confirm {
    /// Whether to remove `what`, such as "3 months". Asks on the terminal unless a flag decides.
    ///
    /// # Errors
    /// Without a terminal and without a flag.
    pub(super) async fn decide(&self, what: &str) -> Result<bool> {
        if self.yes {
            return Ok(true);
        }
        let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if !self.dry_run && !can_ask {
            bail!("{what} would be removed for good: add --yes to remove them, or --dry-run to only look");
        }
        let is_confirmed = !self.dry_run && ask(format!("Remove {what} for good? [y/N] ")).await?;
        if !is_confirmed {
            notice("nothing was removed");
        }
        Ok(is_confirmed)
    }
}

/// Asks on a thread of its own, so that the process still reacts to Ctrl-C.
async fn ask(question: String) -> Result<bool> {
    let answer = tokio::task::spawn_blocking(move || {
        let mut terminal = std::io::stderr();
        write!(terminal, "{question}")?;
        terminal.flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    });
    let answer = answer.await?.context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
