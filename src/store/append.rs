//! Append by group commit: one writer task a journal, everything that arrived while the last commit was on its
//! way to disk goes into the next one.
//!
//! A caller is answered after the commit that makes its answer true. A batch has an identity that is looked up
//! before it is ever sent again, so a commit whose answer was lost is not applied twice. A lone command is a batch
//! of one, sent at once, in one round trip. A journal may ask for pauses of milliseconds between its commits
//! ([`Journal::INTERVAL`]), which delay commands only while they come faster than that.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use deadpool_postgres::Pool;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::hint::Hints;
use super::{AppendMetrics, Error, Space};
use crate::lifecycle::guarded;

/// The connection a journal's statements run on.
pub type Client = deadpool_postgres::Client;

/// How long a writer waits for PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long one attempt may take before its outcome counts as unknown.
    pub attempt: Duration,
    /// How long after the first attempt a batch is still sent again, before its callers are told that PostgreSQL is away.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempt: Duration::from_mins(1), total: Duration::from_secs(90) }
    }
}

/// How one journal commits a batch of commands.
pub trait Journal: Send + Sync + 'static {
    /// What callers ask for.
    type Command: Send + Sync + 'static;
    /// What each caller is told, after the commit. A rule that refuses a single command says so here.
    type Answer: Send + 'static;

    /// Name of the journal's table, for logs, metrics and errors.
    const NAME: &'static str;
    /// Most commands that may wait in the queue.
    const QUEUE_MAX: usize;
    /// Whether loops look for what it says: they are woken after each commit.
    const HAS_FOLLOWERS: bool = true;
    /// Least time from the start of one commit to the start of the next. Commands that come faster share a commit; one that comes later
    /// is not delayed. Zero where callers wait for their answer before they send the next command: waiting would gain nothing.
    const INTERVAL: Duration = Duration::ZERO;

    /// Most weight in one batch.
    fn batch_weight_max(&self) -> usize;

    /// What a command weighs against [`Journal::batch_weight_max`]; at least 1.
    fn weight(_command: &Self::Command) -> usize {
        1
    }

    /// What the command is about, when two about the same thing must not share a batch.
    fn subject(_command: &Self::Command) -> Option<&str> {
        None
    }

    /// Commits the batch in one transaction and gives one answer a command, in their order. Each row it appends
    /// carries `batch` under a unique key.
    fn append(
        &self,
        client: &mut Client,
        batch: Uuid,
        commands: &[Self::Command],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, Error>> + Send;

    /// The answers of a batch that was committed earlier, or `None` when it was not. Called before a batch is
    /// sent a second time.
    fn lookup(
        &self,
        client: &Client,
        batch: Uuid,
        commands: &[Self::Command],
    ) -> impl Future<Output = Result<Option<Vec<Self::Answer>>, Error>> + Send;
}

struct Waiting<J: Journal> {
    command: J::Command,
    answer: oneshot::Sender<Result<J::Answer, Error>>,
}

/// The queue in front of one journal. Cloning shares it; when the last clone goes, the writer ends.
pub struct Writer<J: Journal> {
    queue: mpsc::Sender<Waiting<J>>,
    space: Space,
}

impl<J: Journal> Clone for Writer<J> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), space: self.space.clone() }
    }
}

impl<J: Journal> std::fmt::Debug for Writer<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({})", J::NAME)
    }
}

impl<J: Journal> Writer<J> {
    /// A queue, and the task that drains it. The caller spawns the task; it ends after the last queue handle is
    /// dropped and everything accepted has been answered.
    pub fn new(
        journal: J,
        pool: Pool,
        hints: Hints,
        metrics: AppendMetrics,
    ) -> (Self, impl Future<Output = ()> + Send) {
        Self::with_patience(journal, pool, hints, metrics, Patience::default())
    }

    /// As [`Writer::new`], with other limits of time.
    pub fn with_patience(
        journal: J,
        pool: Pool,
        hints: Hints,
        metrics: AppendMetrics,
        patience: Patience,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, arrivals) = mpsc::channel(J::QUEUE_MAX);
        let door = Door { journal, pool, metrics, patience };
        (Self { queue, space: Space::default() }, drain(door, hints, arrivals))
    }

    /// The same queue, which accepts nothing while `space` has a shortage.
    #[must_use]
    pub fn with_space(self, space: Space) -> Self {
        Self { space, ..self }
    }

    /// Appends, waiting for room in the queue first.
    ///
    /// # Errors
    /// [`Error::NoSpace`] while the disk is full, [`Error::Data`] when PostgreSQL refuses this command's data,
    /// [`Error::Unavailable`] when PostgreSQL stayed away, [`Error::Stopped`] at shutdown.
    pub async fn append(&self, command: J::Command) -> Result<J::Answer, Error> {
        self.space.check(J::NAME)?;
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { command, answer }).await.map_err(|_| Error::Stopped)?;
        self.space.learn(answered.await.map_err(|_| Error::Stopped)?)
    }

    /// Appends without waiting for the commit: for facts that nobody is answered about. Waits for room in the queue.
    ///
    /// # Errors
    /// [`Error::NoSpace`] while the disk is full; [`Error::Stopped`] at shutdown.
    pub async fn post(&self, command: J::Command) -> Result<(), Error> {
        self.space.check(J::NAME)?;
        let (answer, _) = oneshot::channel();
        self.queue.send(Waiting { command, answer }).await.map_err(|_| Error::Stopped)
    }

    /// Appends, or says at once that the queue is full: for edges, which tell their client.
    ///
    /// # Errors
    /// [`Error::Busy`] when the queue is full; otherwise as [`Writer::append`].
    pub async fn try_append(&self, command: J::Command) -> Result<J::Answer, Error> {
        self.space.check(J::NAME)?;
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Waiting { command, answer }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::Busy { journal: J::NAME, limit: J::QUEUE_MAX },
            mpsc::error::TrySendError::Closed(_) => Error::Stopped,
        })?;
        self.space.learn(answered.await.map_err(|_| Error::Stopped)?)
    }
}

/// What a writer needs to commit.
struct Door<J> {
    journal: J,
    pool: Pool,
    metrics: AppendMetrics,
    patience: Patience,
}

async fn drain<J: Journal>(door: Door<J>, hints: Hints, mut arrivals: mpsc::Receiver<Waiting<J>>) {
    let mut held = VecDeque::new();
    let mut started: Option<Instant> = None;
    loop {
        if held.is_empty() {
            match arrivals.recv().await {
                Some(first) => held.push_back(first),
                None => return,
            }
        }
        let due = next_start(started, J::INTERVAL);
        while held.len() < J::QUEUE_MAX {
            let more = match due {
                Some(due) => timeout_at(due, arrivals.recv()).await.ok().flatten(),
                None => arrivals.try_recv().ok(),
            };
            let Some(more) = more else { break };
            held.push_back(more);
        }
        started = Some(Instant::now());
        let (commands, answers) = take_batch(&mut held, door.journal.batch_weight_max());
        commit(&door, commands, answers).await;
        if J::HAS_FOLLOWERS {
            hints.written();
        }
    }
}

/// When the next commit may start; `None` for now.
fn next_start(started: Option<Instant>, interval: Duration) -> Option<Instant> {
    started.map(|started| started + interval).filter(|due| *due > Instant::now())
}

type Answers<J> = Vec<oneshot::Sender<Result<<J as Journal>::Answer, Error>>>;

/// Takes what fits into one batch from the front, in order; at most one command a subject, the rest keeps its order.
fn take_batch<J: Journal>(
    held: &mut VecDeque<Waiting<J>>,
    weight_max: usize,
) -> (Vec<J::Command>, Answers<J>) {
    let mut commands: Vec<J::Command> = Vec::new();
    let mut answers = Vec::new();
    let mut later = VecDeque::new();
    let mut subjects: HashSet<String> = HashSet::new();
    let mut weight = 0;
    while let Some(waiting) = held.pop_front() {
        let adds = J::weight(&waiting.command).max(1);
        if !commands.is_empty() && weight + adds > weight_max {
            held.push_front(waiting);
            break;
        }
        if let Some(subject) = J::subject(&waiting.command)
            && !subjects.insert(subject.to_owned())
        {
            later.push_back(waiting);
            continue;
        }
        weight += adds;
        commands.push(waiting.command);
        answers.push(waiting.answer);
    }
    later.append(held);
    *held = later;
    (commands, answers)
}

async fn commit<J: Journal>(door: &Door<J>, commands: Vec<J::Command>, answers: Answers<J>) {
    match guarded("journal_batch", J::NAME, send(door, &commands)).await {
        Ok(Ok(told)) => {
            debug_assert_eq!(told.len(), answers.len(), "a journal answers each command");
            for (answer, told) in answers.into_iter().zip(told) {
                // A caller that stopped waiting needs no answer.
                let _ = answer.send(Ok(told));
            }
        }
        // One command must not fail the others: unless the store itself is away, each goes alone.
        failed if commands.len() > 1 && !matches!(&failed, Ok(Err(error)) if error.is_outage()) => {
            for (command, answer) in commands.into_iter().zip(answers) {
                let told =
                    guarded("journal_batch", J::NAME, send(door, std::slice::from_ref(&command))).await;
                let told = told.unwrap_or_else(|panicked| Err(Error::broken(panicked)));
                let _ = answer.send(told.and_then(|mut one| one.pop().ok_or(Error::Stopped)));
            }
        }
        failed => {
            let error = failed
                .unwrap_or_else(|panicked| Err(Error::broken(panicked)))
                .err()
                .unwrap_or(Error::Stopped);
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

/// The pauses between attempts while PostgreSQL is away; whoever uses them says when it is enough.
pub(super) fn while_away() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
}

/// Sends one batch until its outcome is known, or PostgreSQL stayed away too long.
async fn send<J: Journal>(door: &Door<J>, commands: &[J::Command]) -> Result<Vec<J::Answer>, Error> {
    let Door { journal, pool, metrics, patience } = door;
    let batch = Uuid::now_v7();
    let sent_before = AtomicBool::new(false);
    let started = Instant::now();
    let attempt = || async {
        let mut client = pool.get().await?;
        let work = async {
            let again = sent_before.swap(true, Ordering::Relaxed);
            if again && let Some(answers) = journal.lookup(&client, batch, commands).await? {
                return Ok(answers);
            }
            match journal.append(&mut client, batch, commands).await {
                // An earlier attempt may have been committed between the lookup and this one, which then found nothing
                // new to do: what is true is what stands under this batch.
                Ok(answers) if again => {
                    Ok(journal.lookup(&client, batch, commands).await?.unwrap_or(answers))
                }
                // An earlier attempt of this very batch was committed after all.
                Err(Error::Data(e))
                    if e.sqlstate() == Some(tokio_postgres::error::SqlState::UNIQUE_VIOLATION.code()) =>
                {
                    journal.lookup(&client, batch, commands).await?.ok_or(Error::Data(e))
                }
                other => other,
            }
        };
        let outcome = tokio::time::timeout(patience.attempt, work).await;
        if !matches!(outcome, Ok(Ok(_) | Err(Error::Data(_)))) {
            // Its state is unknown: never hand it to the next caller.
            drop(deadpool_postgres::Object::take(client));
        }
        outcome.unwrap_or_else(|late| Err(Error::unavailable(late)))
    };
    let outcome = attempt
        .retry(while_away())
        // Space does not come back within seconds; the callers are told at once, and the next ones are refused.
        .when(|error: &Error| {
            error.is_passing() && !matches!(error, Error::NoSpace(_)) && started.elapsed() < patience.total
        })
        .notify(|error, after| {
            metrics.retried(J::NAME);
            tracing::warn!(journal = J::NAME, error = %error, ?after, "a batch is sent again");
        })
        .await;
    metrics.committed(J::NAME, commands.len(), started.elapsed(), outcome.is_ok());
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(5);

    #[tokio::test(start_paused = true)]
    async fn only_a_command_that_comes_within_the_interval_is_delayed() {
        assert_eq!(next_start(None, INTERVAL), None, "the first is not");
        let started = Instant::now();
        assert_eq!(next_start(Some(started), Duration::ZERO), None);
        tokio::time::advance(Duration::from_millis(4)).await;
        assert_eq!(next_start(Some(started), INTERVAL), Some(started + INTERVAL));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(next_start(Some(started), INTERVAL), None, "a lone one is not");
    }
}
