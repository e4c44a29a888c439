//! Submits the jobs of schedules when they are due.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::turn::Turn;
use crate::lifecycle::{CycleOutcome, Service, set_aside};
use crate::services::jobs::append::{JobAnswer, JobJournal, JobNumbers};
use crate::services::jobs::command::Submission;
use crate::services::jobs::decide::{last_due, scheduled_key};
use crate::services::jobs::read::{Schedule, schedule_values, schedules};
use crate::store::append::Writer;
use crate::store::lease::Leases;
use crate::store::{Error, Pools};

/// The loop of schedules.
#[derive(Debug)]
pub struct Schedules {
    pools: Pools,
    turn: Turn,
    jobs: Writer<JobJournal>,
    numbers: JobNumbers,
    /// The newest time for which each schedule has submitted a job, as this process knows. The unique key of
    /// the job decides; this only saves submissions in vain.
    done: Mutex<HashMap<(String, i32), DateTime<Utc>>>,
}

impl Schedules {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(pools: Pools, leases: Leases, jobs: Writer<JobJournal>, numbers: JobNumbers) -> Self {
        Self { pools, turn: Turn::new(leases, "jobs/schedules"), jobs, numbers, done: Mutex::default() }
    }

    /// Submits the job of a schedule that is due. Returns whether it is stored.
    async fn submit(&self, schedule: &Schedule, due: DateTime<Utc>) -> Result<bool, Error> {
        let (tags, metadata) = schedule_values(&self.pools.session, &schedule.name, schedule.step).await?;
        let submission = Submission {
            number: 0,
            job_type: schedule.job_type.clone(),
            priority: schedule.priority,
            run_at_us: None,
            attempts_max: schedule.attempts_max,
            unique_key: scheduled_key(&schedule.name, schedule.step, due.timestamp()),
            source_hash: None,
            source_path: None,
            source_size: None,
            tags,
            metadata,
            depends_on: Vec::new(),
            actor: format!("schedule:{}", schedule.name),
        };
        let answer = self.numbers.submit(&self.jobs, submission).await?;
        Ok(matches!(answer, JobAnswer::Submitted(_)))
    }
}

impl Service for Schedules {
    type Error = Error;

    fn name(&self) -> &'static str {
        "jobs schedules"
    }

    async fn cycle(&self, _drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        if !self.turn.is_ours().await? {
            return Ok(CycleOutcome::Idle);
        }
        let (schedules, now) = schedules(&self.pools.session, false).await?;
        let known: Vec<(String, i32)> = schedules.iter().map(|s| (s.name.clone(), s.step)).collect();
        self.done.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| known.contains(key));
        for schedule in &schedules {
            let key = (schedule.name.clone(), schedule.step);
            let due = match last_due(&schedule.cron, schedule.since, now) {
                Ok(due) => due,
                Err(error) => {
                    set_aside("job_schedule", &schedule.name, None, &error);
                    continue;
                }
            };
            let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
            if let Some(due) = due.filter(|due| done != Some(*due)) {
                if self.submit(schedule, due).await? {
                    self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(key, due);
                }
            }
        }
        Ok(CycleOutcome::Idle)
    }
}
