//! Watches the space on the disk: for the gate that writers ask, for the health, and for the log.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use super::Parts;
use crate::lifecycle::BoxError;

/// Its name among the services in the health.
const NAME: &str = "disk";

/// How often the file system is looked at. At 200 MB a second it loses 50 MB meanwhile, a tenth of the default reserve.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl Parts {
    /// Watches the space that PostgreSQL has in `folder` of this machine, or what it reports when it is elsewhere (`None`).
    pub fn watch_space(&self, folder: Option<PathBuf>) {
        if let Some(folder) = folder {
            self.space.is_at(folder);
        }
        let (space, health, stop) = (self.space.clone(), self.health.clone(), self.lifecycle.drain_token());
        health.starting(NAME);
        self.lifecycle.spawn("disk space", async move {
            let mut was_short = false;
            loop {
                let shortage = space.look();
                if let Some(shortage) = &shortage {
                    let reason = format!("no space left: {shortage}");
                    if !was_short {
                        tracing::error!("{reason}; until then nothing is accepted");
                    }
                    health.waiting(NAME, &reason);
                } else {
                    if was_short {
                        tracing::info!("there is space on the disk again: writing goes on");
                    }
                    health.working(NAME);
                }
                was_short = shortage.is_some();
                if stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_none() {
                    health.stopped(NAME);
                    return Ok::<(), BoxError>(());
                }
            }
        });
    }
}
