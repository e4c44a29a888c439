//! How an answer is shown: once, or again whenever something was written until the reader has seen enough.

use std::io::{self, IsTerminal as _, Write as _};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cli::output;
use crate::lifecycle::stop_signals;
use crate::store::{Doors, Error, Hints};

/// Shortest pause between two answers.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// How many times as long as a question took nothing is asked: who looks at a large archive does not keep it busy.
const PAUSE_FACTOR: u32 = 9;

/// Longest pause: projections follow the journals, and nobody tells when they have.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How an answer is shown.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct View {
    /// One JSON object; bytes and counts as numbers.
    #[arg(long)]
    json: bool,
    /// Follow what changes until Ctrl-C: bars on a terminal, with --json one object a line.
    #[arg(long)]
    watch: bool,
}

impl View {
    /// Asks `doors` once and prints the answer, or asks again and again and draws it.
    pub(super) async fn show<T: Serialize>(
        self,
        doors: &Doors,
        mut ask: impl AsyncFnMut() -> Result<T, Error>,
        print: impl Fn(&T),
        mut draw: impl FnMut(&T),
    ) -> Result<()> {
        if !self.watch {
            let answer = ask().await?;
            if self.json {
                output::say(serde_json::to_string(&answer)?);
            } else {
                print(&answer);
            }
            return Ok(());
        }
        if self.json {
            // A reader that is gone has seen enough.
            let line = |answer: &T| Ok(writeln!(io::stdout(), "{}", serde_json::to_string(answer)?).is_ok());
            return watch(doors, ask, line).await;
        }
        if !io::stderr().is_terminal() {
            bail!(
                "--watch draws on a terminal, and standard error is none: add --json for one object a line"
            );
        }
        let bars = |answer: &T| {
            draw(answer);
            Ok(true)
        };
        watch(doors, ask, bars).await
    }
}

/// Asks and shows until Ctrl-C, or until `show` says that nobody looks. Once the database has answered, it is waited for while it is
/// away.
async fn watch<T>(
    doors: &Doors,
    mut ask: impl AsyncFnMut() -> Result<T, Error>,
    mut show: impl FnMut(&T) -> Result<bool>,
) -> Result<()> {
    let mut stop = pin!(stop_signals()?);
    let hints = Hints::default();
    let wake = hints.subscribe();
    let watching = async {
        let mut has_answered = false;
        loop {
            let asked = Instant::now();
            match ask().await {
                Ok(answer) if show(&answer)? => has_answered = true,
                Ok(_) => return Ok(()),
                Err(error) if has_answered && error.is_passing() => {
                    tracing::warn!(%error, "asked again later");
                }
                Err(error) => return Err(error.into()),
            }
            sleep(PAUSE_MIN.max(asked.elapsed() * PAUSE_FACTOR)).await;
            // Without a hint it is time to look anyway.
            let _ = timeout(PAUSE_MAX, wake.woken()).await;
        }
    };
    tokio::select! {
        ended = watching => ended,
        () = hints.receive(doors.session.clone(), CancellationToken::new()) => Ok(()),
        _ = stop.next() => Ok(()),
    }
}
