//! Commits commands to `job_schedules`, the journal of recurring jobs.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::services::jobs::command::ScheduleCommand;
use crate::services::jobs::decide::SCHEDULES_MAX;
use crate::store::Error;
use crate::store::append::{Client, Journal};

/// The answer to a schedule command, given after the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleAnswer {
    /// The schedule is in force as it was set, or removed.
    Changed,
    /// There is no such schedule.
    Unknown,
    /// There are [`SCHEDULES_MAX`] others.
    Full,
}

/// The journal of schedules.
#[derive(Debug)]
pub struct ScheduleJournal;

/// Held until the commit, so that two processes that change a schedule do so one after the other.
const LOCK: &str =
    "-- lock_job_schedules\nSELECT pg_advisory_xact_lock(hashtextextended('quipu/job_schedules', 0))";

// A schedule that is in force as it is set again gets no new step, so both statements can be sent again.
const SET: &str = "-- set_job_schedule
    INSERT INTO job_schedules (name, step, kind, cron, timezone, type, priority, attempts_max, tags, metadata, actor)
    SELECT $1, coalesce(l.step, 0) + 1, 'set', $2, $3, $4, $5, $6, $7, $8, $9
    FROM (VALUES (1)) one LEFT JOIN LATERAL (SELECT * FROM job_schedules WHERE name = $1 ORDER BY step DESC LIMIT 1) l ON true
    WHERE (l.kind, l.cron, l.timezone, l.type, l.priority, l.attempts_max, l.tags, l.metadata)
          IS DISTINCT FROM ('set', $2, $3, $4, $5, $6, $7, $8)";

const OTHERS: &str = "-- count_other_job_schedules
    SELECT count(*) FROM (SELECT DISTINCT ON (name) name, kind FROM job_schedules ORDER BY name, step DESC) s
    WHERE s.kind = 'set' AND s.name <> $1";

const REMOVE: &str = "-- remove_job_schedule
    WITH last AS (SELECT * FROM job_schedules WHERE name = $1 ORDER BY step DESC LIMIT 1),
    gone AS (
        INSERT INTO job_schedules (name, step, kind, cron, timezone, type, priority, attempts_max, tags, metadata, actor)
        SELECT l.name, l.step + 1, 'removed', l.cron, l.timezone, l.type, l.priority, l.attempts_max, l.tags, l.metadata, $2
        FROM last l WHERE l.kind = 'set')
    SELECT name FROM last";

impl Journal for ScheduleJournal {
    type Command = ScheduleCommand;
    type Answer = ScheduleAnswer;
    const NAME: &'static str = "job_schedules";
    const QUEUE_MAX: usize = 256;

    fn batch_weight_max(&self) -> usize {
        64
    }

    fn subject(command: &ScheduleCommand) -> Option<&str> {
        Some(match command {
            ScheduleCommand::Set(set) => &set.name,
            ScheduleCommand::Remove { name, .. } => name,
        })
    }

    async fn append(
        &self,
        client: &mut Client,
        _batch: Uuid,
        commands: &[ScheduleCommand],
    ) -> Result<Vec<ScheduleAnswer>, Error> {
        let transaction = client.transaction().await?;
        transaction.query_typed(LOCK, &[]).await?;
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            let answer = match command {
                ScheduleCommand::Set(set) => {
                    let rows = transaction.query_typed(OTHERS, &[(&set.name, Type::TEXT)]).await?;
                    if rows.first().is_some_and(|row| row.get::<_, i64>(0) >= SCHEDULES_MAX) {
                        answers.push(ScheduleAnswer::Full);
                        continue;
                    }
                    transaction
                        .execute_typed(
                            SET,
                            &[
                                (&set.name, Type::TEXT),
                                (&set.cron, Type::TEXT),
                                (&set.timezone, Type::TEXT),
                                (&set.job_type, Type::TEXT),
                                (&set.priority, Type::INT2),
                                (&set.attempts_max, Type::INT4),
                                (&set.tags, Type::JSONB),
                                (&set.metadata, Type::JSONB),
                                (&set.actor, Type::TEXT),
                            ],
                        )
                        .await?;
                    ScheduleAnswer::Changed
                }
                ScheduleCommand::Remove { name, actor } => {
                    let rows =
                        transaction.query_typed(REMOVE, &[(name, Type::TEXT), (actor, Type::TEXT)]).await?;
                    if rows.is_empty() { ScheduleAnswer::Unknown } else { ScheduleAnswer::Changed }
                }
            };
            answers.push(answer);
        }
        transaction.commit().await?;
        Ok(answers)
    }

    /// Always `None`, so the batch is sent again: both statements are idempotent.
    async fn lookup(
        &self,
        _client: &Client,
        _batch: Uuid,
        _commands: &[ScheduleCommand],
    ) -> Result<Option<Vec<ScheduleAnswer>>, Error> {
        Ok(None)
    }
}
