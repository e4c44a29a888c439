//! Watches the free space on the disk, and reports a shortage to the writers, the health and the log.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use super::Parts;
use crate::lifecycle::BoxError;

/// Its name in the health.
const NAME: &str = "disk";

/// Pause between two checks of the file system. At 200 MB a second 50 MB are written meanwhile, a tenth of
/// the default reserve.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl Parts {
    /// Watches the free space of the file system that holds `folder`, PostgreSQL's data. With `None`
    /// PostgreSQL runs elsewhere, and a shortage is known from its errors alone (SQLSTATE 53100).
    pub fn watch_space(&self, folder: Option<PathBuf>) {
        if let Some(folder) = folder {
            self.space.set_folder(folder);
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
                        tracing::error!("{reason}; commands are refused until there is enough space");
                    }
                    health.waiting(NAME, &reason);
                } else {
                    if was_short {
                        tracing::info!("there is enough space on the disk again: commands are accepted");
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
