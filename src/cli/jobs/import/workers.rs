//! Stores workers of BlobForge: created, disabled if they were, and their secrets.

use anyhow::Result;
use indicatif::ProgressBar;

use super::rows::{Refused, WorkerRow};
use super::{ACTOR, Done, Import, send};
use crate::services::jobs::append::{CredentialJournal, WorkerAnswer, WorkerJournal, unfinished_workers};
use crate::services::jobs::command::{CredentialCommand, NewCredential, WorkerCommand, WorkerProfile};
use crate::services::jobs::decide::WorkerRefusal;
use crate::services::jobs::event::WorkerEvent;
use crate::store::Pools;

impl Import {
    /// Stores workers and their secrets. A worker that is known here keeps what it has: it gets no secret of the file.
    pub(super) async fn workers(
        &self,
        pools: Option<&Pools>,
        rows: Vec<WorkerRow>,
        done: &mut Done,
        bar: &ProgressBar,
    ) -> Result<()> {
        let Some(pools) = pools else {
            done.workers.imported += u64::try_from(rows.len()).unwrap_or(u64::MAX);
            return Ok(());
        };
        let command = |row: &WorkerRow, event, profile| WorkerCommand {
            worker: row.id.clone(),
            event,
            profile,
            actor: ACTOR.to_owned(),
        };
        let created: Vec<WorkerCommand> = rows
            .iter()
            .map(|row| {
                let (job_type, name, metadata) =
                    (row.job_type.clone(), row.name.clone(), row.metadata.clone());
                command(row, WorkerEvent::Created, Some(WorkerProfile { job_type, name, metadata }))
            })
            .collect();
        let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        // Of an import that was interrupted after it had created them.
        let unfinished = unfinished_workers(pools, &ids, ACTOR).await?;
        let answers = send(WorkerJournal, pools, created).await?;
        let (mut disabled, mut created) = (Vec::new(), Vec::new());
        for (row, answer) in rows.into_iter().zip(answers) {
            match answer {
                WorkerAnswer::Refused(WorkerRefusal::Exists) if !unfinished.contains(&row.id) => {
                    done.workers.add(true);
                }
                WorkerAnswer::Changed(_) | WorkerAnswer::Refused(WorkerRefusal::Exists) => {
                    done.workers.add(false);
                    if !row.is_enabled {
                        disabled.push(command(&row, WorkerEvent::Disabled, None));
                    }
                    created.push(row);
                }
                WorkerAnswer::Refused(refusal) => {
                    done.workers.refused += 1;
                    let refused = Refused::new("workers", &row.id, refusal.to_string());
                    bar.suspend(|| self.name(&refused))?;
                }
                WorkerAnswer::Contended => anyhow::bail!("worker {}: others change it", row.id),
            }
        }
        send(WorkerJournal, pools, disabled).await?;
        let secrets = created.into_iter().filter_map(|row| {
            Some(CredentialCommand::Create(Box::new(NewCredential {
                sha256: row.secret_sha256?,
                name: row.id.clone(),
                worker: Some(row.id),
                is_admin: false,
                scopes: Vec::new(),
                lifetime_s: None,
                actor: ACTOR.to_owned(),
            })))
        });
        send(CredentialJournal, pools, secrets.collect()).await?;
        Ok(())
    }
}
