//! Watches whether the database answers, and reports it to the health and the log.
//!
//! A service cannot report this itself: one that has nothing to do asks nothing, and one that waits for an
//! answer has not failed yet.

use std::time::Duration;

use tokio::time::sleep;

use super::Parts;
use crate::lifecycle::BoxError;
use crate::store::{Error, Probe};

/// Its name in the health.
const NAME: &str = "database";

/// Pause between two questions.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Longest wait for the answer. With the pause, a database that stops answering is reported within 15 s.
const ANSWER_MAX: Duration = Duration::from_secs(5);

impl Parts {
    /// Asks the database every few seconds whether it answers. While it does not, `/readyz` says so, and this
    /// process accepts work again by itself afterwards.
    ///
    /// # Errors
    /// [`Error::Url`] when a URL cannot be parsed.
    pub fn watch_database(&self) -> Result<(), Error> {
        let urls = self.pools.urls();
        let mut probe = Probe::new([&urls.write, &urls.session])?;
        let (health, stop) = (self.health.clone(), self.lifecycle.drain_token());
        health.starting(NAME);
        self.lifecycle.spawn("database probe", async move {
            let mut was_away = false;
            while let Some(answer) = stop.run_until_cancelled(probe.ask(ANSWER_MAX)).await {
                if let Err(error) = &answer {
                    let reason = error.to_string();
                    if !was_away {
                        tracing::error!("the database does not answer: {reason}");
                    }
                    health.waiting(NAME, &reason);
                } else {
                    if was_away {
                        tracing::info!("the database answers again");
                    }
                    health.working(NAME);
                }
                was_away = answer.is_err();
                if stop.run_until_cancelled(sleep(ASK_EVERY)).await.is_none() {
                    break;
                }
            }
            health.stopped(NAME);
            Ok::<(), BoxError>(())
        });
        Ok(())
    }
}
