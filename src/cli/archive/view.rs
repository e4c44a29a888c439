//! Shows the result of a query once, or with `--watch` again and again while the database changes.

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
use crate::store::{Error, Hints, Pools};

/// Shortest pause between two queries.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest pause between two queries.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// The pause is this many times the duration of the query, so that watching takes at most a tenth of the
/// database's time.
const PAUSE_FACTOR: u32 = 9;

/// Longest wait for a hint after the pause. Without one the query runs again, because projections change
/// without a hint.
const QUIET: Duration = Duration::from_secs(5);

/// Longest wait for connections to close, so that a server that hangs does not hold up Ctrl-C.
const CLOSING: Duration = Duration::from_secs(1);

/// The flags that say how a result is shown.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct View {
    /// Print one JSON object, with bytes and counts as numbers.
    #[arg(long)]
    json: bool,
    /// Follow changes until Ctrl-C: with bars on a terminal, or with --json one object a line.
    #[arg(long)]
    watch: bool,
}

impl View {
    /// Runs the query `ask` once and prints its result, or repeatedly and draws it. Closes the connection
    /// pools.
    pub(in crate::cli) async fn show<T: Serialize>(
        self,
        pools: Pools,
        ask: impl AsyncFnMut(&Pools) -> Result<T, Error>,
        print: impl Fn(&T) -> Result<()>,
        draw: impl FnMut(&T),
    ) -> Result<()> {
        let shown = if self.watch {
            self.follow(&pools, ask, draw).await
        } else {
            self.once(&pools, ask, print).await
        };
        let _ = timeout(CLOSING, pools.close()).await;
        shown
    }

    async fn once<T: Serialize>(
        self,
        pools: &Pools,
        mut ask: impl AsyncFnMut(&Pools) -> Result<T, Error>,
        print: impl Fn(&T) -> Result<()>,
    ) -> Result<()> {
        let answer = ask(pools).await?;
        if self.json { output::list(serde_json::to_string(&answer)?) } else { print(&answer) }
    }

    async fn follow<T: Serialize>(
        self,
        pools: &Pools,
        ask: impl AsyncFnMut(&Pools) -> Result<T, Error>,
        mut draw: impl FnMut(&T),
    ) -> Result<()> {
        if self.json {
            return watch(pools, ask, |answer| output::list(serde_json::to_string(answer)?)).await;
        }
        if !output::is_drawn() {
            bail!(
                "--watch draws on a terminal, and standard error is none (or TERM says so): add --json for one object a line"
            );
        }
        let bars = |answer: &T| {
            draw(answer);
            Ok(())
        };
        let watched = watch(pools, ask, bars).await;
        output::leave_bars();
        watched
    }
}

/// Runs the query and shows its result until Ctrl-C, or until `show` fails. After the first result, a
/// database that goes away is tried again.
async fn watch<T>(
    pools: &Pools,
    mut ask: impl AsyncFnMut(&Pools) -> Result<T, Error>,
    mut show: impl FnMut(&T) -> Result<()>,
) -> Result<()> {
    let mut stop = pin!(stop_signals()?);
    let hints = Hints::default();
    let wake = hints.subscribe();
    let watching = async {
        let mut has_answered = false;
        loop {
            let asked = Instant::now();
            let answer = ask(pools).await;
            let mut pause = (asked.elapsed() * PAUSE_FACTOR).clamp(PAUSE_MIN, PAUSE_MAX);
            match answer {
                Ok(answer) => {
                    show(&answer)?;
                    has_answered = true;
                }
                Err(error) if has_answered && error.is_transient() => {
                    tracing::warn!(%error, "the database did not answer; trying again");
                    pause = PAUSE_MIN;
                }
                Err(error) => return Err(error.into()),
            }
            sleep(pause).await;
            let _ = timeout(QUIET, wake.woken()).await;
        }
    };
    tokio::select! {
        ended = watching => ended,
        () = hints.receive(pools.session.clone(), CancellationToken::new()) => Ok(()),
        _ = stop.next() => Ok(()),
    }
}
