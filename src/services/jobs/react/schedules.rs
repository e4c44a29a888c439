//! Submits the jobs of schedules when they are due.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{CycleOutcome, Service, set_aside};
use crate::services::jobs::append::{JobAnswer, JobJournal, JobNumbers, move_cursor, read_cursor};
use crate::services::jobs::command::Submission;
use crate::services::jobs::decide::{due_times, next_look, scheduled_key};
use crate::services::jobs::read::{Schedule, schedule_values, schedules};
use crate::store::lease::{Leases, LoopLease};
use crate::store::{Error, Pools, Shards};

/// The name of its cursor: the time up to which all jobs of schedules are submitted, microseconds since 1970.
const CURSOR: &str = "schedules";

/// Time between two records of the cursor: with the time until another process takes over, less than the longest
/// interruption of which all times are made up for.
const RECORD_EVERY: TimeDelta = TimeDelta::seconds(20);

/// The loop of schedules.
#[derive(Debug)]
pub struct Schedules {
    pools: Pools,
    lease: LoopLease,
    jobs: Shards<JobJournal>,
    numbers: JobNumbers,
    /// `None` while another process does it.
    looked: Mutex<Option<Looked>>,
}

/// Up to which time jobs are submitted.
#[derive(Debug)]
struct Looked {
    /// By the process that did it before this one.
    before: Option<DateTime<Utc>>,
    /// By this process, of each schedule by name and step. The unique keys of the jobs decide; this only saves
    /// submissions and searches in vain.
    here: HashMap<(String, i32), Seen>,
    /// When the cursor was recorded.
    recorded: Option<DateTime<Utc>>,
}

/// What this process knows of a schedule as one step set it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// All its jobs up to this time are stored.
    until: DateTime<Utc>,
    /// It is not due from then to this time.
    next: DateTime<Utc>,
}

impl Schedules {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(pools: Pools, leases: Leases, jobs: Shards<JobJournal>, numbers: JobNumbers) -> Self {
        Self {
            pools,
            lease: LoopLease::new(leases, "jobs/schedules"),
            jobs,
            numbers,
            looked: Mutex::default(),
        }
    }

    /// What another process, or this one before it was started again, has recorded.
    async fn taken_over(&self) -> Result<Looked, Error> {
        let recorded = read_cursor(&self.pools, CURSOR).await?;
        let before = recorded.and_then(|value| DateTime::from_timestamp_micros(value.parse().ok()?));
        Ok(Looked { before, here: HashMap::new(), recorded: None })
    }

    /// Submits the jobs of a schedule that became due since `after`. What is known then; `None` if a job is not stored: its
    /// time comes again with the next look.
    async fn look(
        &self,
        schedule: &Schedule,
        after: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<Seen>, Error> {
        let (cron, zone) = (&schedule.cron, schedule.timezone.as_deref());
        let found =
            due_times(cron, zone, after, now).and_then(|times| Ok((times, next_look(cron, zone, now)?)));
        let (times, next) = match found {
            Ok(found) => found,
            Err(error) => {
                set_aside("job_schedule", &schedule.name, None, &error);
                return Ok(Some(Seen { until: now, next: now }));
            }
        };
        let mut is_stored = true;
        for due in times {
            match self.submit(schedule, due).await {
                Ok(stored) => is_stored &= stored,
                Err(error) if error.is_outage() => return Err(error),
                // Only this schedule fails: the others go on.
                Err(error) => {
                    set_aside("job_schedule", &schedule.name, None, &error);
                    is_stored = false;
                }
            }
        }
        Ok(is_stored.then_some(Seen { until: now, next }))
    }

    /// Submits the job of a schedule that is due. Returns whether it is stored, or was and has been erased since.
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
        Ok(matches!(answer, JobAnswer::Submitted(_) | JobAnswer::Erased))
    }
}

impl Service for Schedules {
    type Error = Error;

    fn name(&self) -> &'static str {
        "jobs schedules"
    }

    async fn cycle(&self, _drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        let mut guard = self.looked.lock().await;
        if !self.lease.is_held().await? {
            *guard = None;
            return Ok(CycleOutcome::Idle);
        }
        if guard.is_none() {
            *guard = Some(self.taken_over().await?);
        }
        let Some(looked) = guard.as_mut() else { return Ok(CycleOutcome::Idle) };
        let (schedules, now) = schedules(&self.pools.session, false).await?;
        let known: HashSet<(&str, i32)> = schedules.iter().map(|s| (s.name.as_str(), s.step)).collect();
        looked.here.retain(|(name, step), _| known.contains(&(name.as_str(), *step)));
        let mut is_complete = true;
        for schedule in &schedules {
            let key = (schedule.name.clone(), schedule.step);
            let seen = match looked.here.get(&key).copied() {
                Some(seen) if now < seen.next => Some(Seen { until: now, ..seen }),
                // A schedule that came into force since then is looked at from its own beginning.
                seen => {
                    let before = || looked.before.map_or(schedule.since, |before| before.max(schedule.since));
                    let after = seen.map_or_else(before, |seen| seen.until);
                    self.look(schedule, after, now).await?
                }
            };
            match seen {
                Some(seen) => {
                    looked.here.insert(key, seen);
                }
                None => is_complete = false,
            }
        }
        let is_due = looked.recorded.is_none_or(|recorded| now - recorded >= RECORD_EVERY);
        if is_complete && is_due && !schedules.is_empty() {
            move_cursor(&self.pools, CURSOR, &now.timestamp_micros().to_string()).await?;
            looked.recorded = Some(now);
        }
        Ok(CycleOutcome::Idle)
    }
}
