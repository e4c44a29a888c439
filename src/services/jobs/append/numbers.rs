//! Numbers for new jobs. A submission has its number before it is sent, so that it can be sent again after an
//! answer was lost. A number that no job has used comes back: each million of numbers costs two tables.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use tokio_postgres::types::Type;

use super::{JobAnswer, JobJournal};
use crate::services::jobs::command::{JobCommand, Submission};
use crate::store::{Error, Pools, Shards};

/// Most unique keys of which numbers are kept.
const GIVEN_UP_MAX: usize = 1_000;

/// Numbers drawn at a time. A process that ends leaves at most so many unused.
const DRAWN: i32 = 256;

const UNKNOWN: &str = "-- unknown_jobs
    SELECT EXISTS (SELECT FROM unnest($1::bigint[]) AS d (job) WHERE (SELECT x.job FROM jobs x WHERE x.job = d.job) IS NULL)";

/// A transaction in progress has the unique key.
struct Contended;

/// Pauses before a contended submission is sent again, 1.5 s altogether. Nothing else waits meanwhile.
fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default().with_min_delay(Duration::from_millis(50)).with_max_times(5)
}

/// The numbers that this process has drawn. Clones share them.
#[derive(Debug, Clone)]
pub struct JobNumbers {
    pools: Pools,
    drawn: Arc<Mutex<VecDeque<i64>>>,
    /// Numbers of submissions that were given up because others held their unique key. An attempt whose answer was
    /// lost may still store one, so each is for that key alone.
    given_up: Arc<Mutex<HashMap<[u8; 32], Vec<i64>>>>,
    /// Held while more are drawn.
    drawing: Arc<tokio::sync::Mutex<()>>,
}

impl JobNumbers {
    /// No numbers yet.
    #[must_use]
    pub fn new(pools: Pools) -> Self {
        Self { pools, drawn: Arc::default(), given_up: Arc::default(), drawing: Arc::default() }
    }

    fn drawn(&self) -> MutexGuard<'_, VecDeque<i64>> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a number back that no job has, and that no submission on its way can use.
    pub(super) fn take_back(&self, number: i64) {
        let mut drawn = self.drawn();
        if !drawn.contains(&number) {
            drawn.push_front(number);
        }
    }

    fn given_up_of(&self, key: [u8; 32]) -> Option<i64> {
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = given_up.get_mut(&key)?;
        let number = numbers.pop();
        if numbers.is_empty() {
            given_up.remove(&key);
        }
        number
    }

    fn give_up(&self, key: Option<[u8; 32]>, number: i64) {
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = key
            && given_up.len() < GIVEN_UP_MAX
        {
            given_up.entry(key).or_default().push(number);
        }
    }

    fn first(&self) -> Option<i64> {
        self.drawn().pop_front()
    }

    /// The next number.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn next(&self) -> Result<i64, Error> {
        if let Some(number) = self.first() {
            return Ok(number);
        }
        let _alone = self.drawing.lock().await;
        if let Some(number) = self.first() {
            return Ok(number);
        }
        let client = self.pools.write.get().await?;
        let rows = client
            .query_typed(
                "-- draw_job_numbers\nSELECT * FROM quipu_draw_job_numbers($1)",
                &[(&DRAWN, Type::INT4)],
            )
            .await?;
        self.drawn().extend(rows.iter().map(|row| row.get::<_, i64>(0)));
        self.first().ok_or_else(|| Error::inconsistent("job_number", "no number was drawn"))
    }

    /// Gives a submission its number and appends it. While a transaction in progress has its unique key, it is sent
    /// again for a short time.
    ///
    /// # Errors
    /// As [`Shards::append`].
    pub async fn submit(
        &self,
        jobs: &Shards<JobJournal>,
        submission: Submission,
    ) -> Result<JobAnswer, Error> {
        // What exists now exists when the submission is appended, unless the owner removes it at that moment.
        if !submission.depends_on.is_empty() && self.is_unknown(&submission.depends_on).await? {
            return Ok(JobAnswer::UnknownDependency);
        }
        if let Some(number) = submission.unique_key.and_then(|key| self.given_up_of(key)) {
            let answer = self.send(jobs, Submission { number, ..submission.clone() }).await;
            // An attempt of the submission that gave it up had stored it after all. This one is another submission.
            if !matches!(answer, Ok(JobAnswer::Erased)) {
                return answer;
            }
        }
        let number = self.next().await?;
        self.send(jobs, Submission { number, ..submission }).await
    }

    async fn send(&self, jobs: &Shards<JobJournal>, submission: Submission) -> Result<JobAnswer, Error> {
        let send = || async {
            match jobs.append(JobCommand::Submit(Box::new(submission.clone()))).await {
                Ok(JobAnswer::Contended) => Err(Contended),
                answer => Ok(answer),
            }
        };
        let answer = send.retry(pauses()).await.unwrap_or(Ok(JobAnswer::Contended));
        match &answer {
            // PostgreSQL refuses the data with each attempt.
            Err(Error::Data(_)) => self.take_back(submission.number),
            Ok(JobAnswer::Contended) => self.give_up(submission.unique_key, submission.number),
            _ => {}
        }
        answer
    }

    async fn is_unknown(&self, jobs: &[i64]) -> Result<bool, Error> {
        let client = self.pools.write.get().await?;
        let rows = client.query_typed(UNKNOWN, &[(&jobs, Type::INT8_ARRAY)]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }
}
