//! Commits commands to `job_worker_log`, the journal of workers.

use std::collections::HashMap;

use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::rows;
use crate::services::jobs::command::WorkerCommand;
use crate::services::jobs::decide::{WORKERS_MAX, WorkerRefusal, change_worker};
use crate::services::jobs::event::{WorkerEvent, WorkerState, WorkerStatus};
use crate::store::Error;
use crate::store::append::{Client, Journal};

/// Rounds after which a command whose step was always taken by others is given up.
const ROUNDS_MAX: usize = 8;

/// The answer to a worker command, given after the commit.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerAnswer {
    /// The worker is in this state.
    Changed(WorkerState),
    /// The command is refused.
    Refused(WorkerRefusal),
    /// Others changed the worker each time before this command could. It may be sent again.
    Contended,
}

/// The journal of workers.
#[derive(Debug)]
pub struct WorkerJournal;

/// The secrets of a worker end with it: a registration of the same id does not bring them back.
const APPEND: &str = "-- append_worker_steps
    WITH stored AS (
        INSERT INTO job_worker_log (worker, step, kind, status, is_enabled, type, name, metadata, actor)
        SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::boolean[], $6::text[], $7::text[], $8::jsonb[], $9::text[])
        ORDER BY 1
        ON CONFLICT DO NOTHING RETURNING worker, status, actor),
    revoked AS (
        INSERT INTO job_credentials (kind, secret_sha256, name, worker, is_admin, scopes, expires_at, actor)
        SELECT 'revoked', c.secret_sha256, c.name, c.worker, c.is_admin, c.scopes, c.expires_at, s.actor
        FROM stored s JOIN job_credentials c ON c.worker = s.worker AND c.kind = 'created'
        WHERE s.status = 'removed' ORDER BY c.secret_sha256
        ON CONFLICT DO NOTHING)
    SELECT worker FROM stored";

impl Journal for WorkerJournal {
    type Command = WorkerCommand;
    type Answer = WorkerAnswer;
    const NAME: &'static str = "job_worker_log";
    const QUEUE_MAX: usize = 1_024;

    fn batch_weight_max(&self) -> usize {
        256
    }

    fn subject(command: &WorkerCommand) -> Option<&str> {
        Some(&command.worker)
    }

    async fn append(
        &self,
        client: &mut Client,
        _batch: Uuid,
        commands: &[WorkerCommand],
    ) -> Result<Vec<WorkerAnswer>, Error> {
        let mut answers: Vec<Option<WorkerAnswer>> = vec![None; commands.len()];
        for _ in 0..ROUNDS_MAX {
            let open: Vec<usize> = (0..commands.len()).filter(|place| answers[*place].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let ids: Vec<&str> = open.iter().map(|place| commands[*place].worker.as_str()).collect();
            let states = rows::workers(client, &ids).await?;
            let begins = |place: usize| begins(&states, &commands[place]);
            let has_new = open.iter().any(|place| begins(*place));
            let mut room = if has_new { room_for_workers(client).await? } else { 0 };
            let mut steps: Vec<(usize, WorkerState)> = Vec::new();
            for place in open {
                let is_full = begins(place) && room <= 0;
                let decided =
                    if is_full { Err(WorkerRefusal::Full) } else { decided(&states, &commands[place]) };
                if decided.is_ok() && begins(place) {
                    room -= 1;
                }
                match decided {
                    Ok(Some(state)) => steps.push((place, state)),
                    Ok(None) => {
                        let state = states.get(&commands[place].worker).cloned();
                        answers[place] = state.map(WorkerAnswer::Changed);
                    }
                    Err(refusal) => answers[place] = Some(WorkerAnswer::Refused(refusal)),
                }
            }
            let stored = append(client, commands, &steps).await?;
            for (place, state) in steps {
                if stored.contains(&state.worker) {
                    answers[place] = Some(WorkerAnswer::Changed(state));
                }
            }
        }
        Ok(answers.into_iter().map(|answer| answer.unwrap_or(WorkerAnswer::Contended)).collect())
    }

    /// Always `None`, so the batch is sent again: an event that has happened changes nothing. Only the creation
    /// of a worker is then refused, because the worker exists.
    async fn lookup(
        &self,
        _client: &Client,
        _batch: Uuid,
        _commands: &[WorkerCommand],
    ) -> Result<Option<Vec<WorkerAnswer>>, Error> {
        Ok(None)
    }
}

/// Whether a command is about a worker that is not known, or was removed, and begins it.
fn begins(states: &HashMap<String, WorkerState>, command: &WorkerCommand) -> bool {
    let is_known = states.get(&command.worker).is_some_and(|known| known.status != WorkerStatus::Removed);
    !is_known && matches!(command.event, WorkerEvent::Created | WorkerEvent::Registered)
}

/// How many more workers there may be. Another process may begin some at the same time.
async fn room_for_workers(client: &Client) -> Result<i64, Error> {
    let rows = client
        .query_typed(
            "-- count_job_workers
             SELECT $1 - count(*) FROM (
                 SELECT FROM job_workers w
                 WHERE w.status <> 'offline' OR EXISTS (SELECT FROM job_credentials c WHERE c.worker = w.worker AND c.kind = 'created')
                 LIMIT $1) w",
            &[(&WORKERS_MAX, Type::INT8)],
        )
        .await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// The next state of a worker; `None` if nothing changes. A worker that registers as it is registered already
/// changes nothing.
fn decided(
    states: &HashMap<String, WorkerState>,
    command: &WorkerCommand,
) -> Result<Option<WorkerState>, WorkerRefusal> {
    let known = states.get(&command.worker);
    let next = change_worker(known, command)?;
    Ok(next.filter(|next| {
        command.event != WorkerEvent::Registered
            || known.is_none_or(|known| WorkerState { step: next.step, ..known.clone() } != *next)
    }))
}

async fn append(
    client: &Client,
    commands: &[WorkerCommand],
    steps: &[(usize, WorkerState)],
) -> Result<Vec<String>, Error> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = steps.iter().map(|(_, state)| state.worker.as_str()).collect();
    let numbers: Vec<i32> = steps.iter().map(|(_, state)| state.step).collect();
    let kinds: Vec<&str> = steps.iter().map(|(place, _)| commands[*place].event.as_str()).collect();
    let statuses: Vec<&str> = steps.iter().map(|(_, state)| state.status.as_str()).collect();
    let enabled: Vec<bool> = steps.iter().map(|(_, state)| state.is_enabled).collect();
    let types: Vec<&str> = steps.iter().map(|(_, state)| state.job_type.as_str()).collect();
    let names: Vec<Option<&str>> = steps.iter().map(|(_, state)| state.name.as_deref()).collect();
    let metadata: Vec<Option<&Value>> = steps.iter().map(|(_, state)| state.metadata.as_ref()).collect();
    let actors: Vec<&str> = steps.iter().map(|(place, _)| commands[*place].actor.as_str()).collect();
    let rows = client
        .query_typed(
            APPEND,
            &[
                (&ids, Type::TEXT_ARRAY),
                (&numbers, Type::INT4_ARRAY),
                (&kinds, Type::TEXT_ARRAY),
                (&statuses, Type::TEXT_ARRAY),
                (&enabled, Type::BOOL_ARRAY),
                (&types, Type::TEXT_ARRAY),
                (&names, Type::TEXT_ARRAY),
                (&metadata, Type::JSONB_ARRAY),
                (&actors, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
