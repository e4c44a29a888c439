//! Group commit: each journal has one queue and one writer task. Commands that arrive while a commit is being
//! written to disk share the next commit.
//!
//! A caller receives its answer after the commit that stores its command. Each batch has an id; before a
//! batch is sent a second time, the writer looks the id up, so a commit whose answer was lost is not applied
//! twice. A command that arrives alone is sent at once, as a batch of one, in one round trip. A journal may
//! set a minimum interval between commits ([`Journal::INTERVAL`], milliseconds); it delays commands only
//! while they arrive faster than that.
//!
//! | outcome of an attempt | what the writer does |
//! |---|---|
//! | committed | answers every caller |
//! | unknown: timeout, lost connection, transient error | looks the batch up and retries, until [`RetryLimits::total`]; then every caller gets [`Error::Unavailable`] |
//! | no disk space | every caller gets [`Error::NoSpace`]; [`Space`] refuses further commands for a while |
//! | any other error, or a panic, with several commands | sends each command alone |
//! | any other error, or a panic, with one command | its caller gets the error |

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use deadpool_postgres::Pool;
use tokio::sync::mpsc::{self, Permit};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::hint::Hints;
use super::metrics::WriterMetrics;
use super::{AppendMetrics, Error, Space};
use crate::lifecycle::guarded;

/// The connection a journal's statements run on.
pub type Client = deadpool_postgres::Client;

/// How long a writer keeps trying to commit a batch.
#[derive(Debug, Clone, Copy)]
pub struct RetryLimits {
    /// Timeout of one attempt. After it, the outcome of the attempt counts as unknown.
    pub attempt: Duration,
    /// How long after the first attempt a batch is still retried. After that, its callers receive
    /// [`Error::Unavailable`].
    pub total: Duration,
}

impl Default for RetryLimits {
    fn default() -> Self {
        Self { attempt: Duration::from_mins(1), total: Duration::from_secs(90) }
    }
}

/// How one journal commits a batch of commands.
pub trait Journal: Send + Sync + 'static {
    /// A request of a caller.
    type Command: Send + Sync + 'static;
    /// The answer to one command, after the commit. A rule that refuses a single command says so here.
    type Answer: Send + 'static;

    /// Name of the journal's table, for log lines, metrics and errors.
    const NAME: &'static str;
    /// Maximum number of commands that wait in the queue.
    const QUEUE_MAX: usize;
    /// Whether loops wait for entries of this journal; if so, they are woken after each commit.
    const WAKES_LOOPS: bool = true;
    /// Minimum time from the start of one commit to the start of the next. Commands that arrive faster share
    /// a commit; a command that arrives later is not delayed. Zero for journals whose callers wait for each
    /// answer before they send the next command: a delay would not merge anything.
    const INTERVAL: Duration = Duration::ZERO;

    /// Maximum total weight of one batch.
    fn batch_weight_max(&self) -> usize;

    /// Weight of a command, counted against [`Journal::batch_weight_max`]; at least 1.
    fn weight(_command: &Self::Command) -> usize {
        1
    }

    /// The subject of the command. Two commands with the same subject never share a batch.
    fn subject(_command: &Self::Command) -> Option<&str> {
        None
    }

    /// The shard of a command, of a journal whose commands [`super::Shards`] divides: its remainder counts. `None` if any
    /// shard may take it. Commands that must be committed in the order in which they arrive have the same shard.
    fn shard(_command: &Self::Command) -> Option<usize> {
        Some(0)
    }

    /// Commits the batch in one transaction and returns one answer per command, in the same order. The same
    /// batch may arrive twice and must be stored once. Most journals store `batch` under a unique key, which
    /// [`Journal::lookup`] searches. In the others a repeated append changes nothing and gives the same
    /// answers.
    fn append(
        &self,
        client: &mut Client,
        batch: Uuid,
        commands: &[Self::Command],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, Error>> + Send;

    /// The answers of a batch that was committed earlier, or `None` when it was not committed or may be
    /// appended again without effect. Called before a batch is sent a second time.
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

/// The answer to a queued command, after its commit.
type Answered<J> = oneshot::Receiver<Result<<J as Journal>::Answer, Error>>;

/// The queue of one journal. Clones share it; the writer task ends when the last clone is dropped.
pub struct Writer<J: Journal> {
    queue: mpsc::Sender<Waiting<J>>,
    space: Space,
    metrics: WriterMetrics,
}

impl<J: Journal> Clone for Writer<J> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), space: self.space.clone(), metrics: self.metrics.clone() }
    }
}

impl<J: Journal> std::fmt::Debug for Writer<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({})", J::NAME)
    }
}

impl<J: Journal> Writer<J> {
    /// Returns the queue and the task that commits its commands. The caller spawns the task; the task ends
    /// after the last queue handle is dropped and every accepted command has been answered.
    pub fn new(
        journal: J,
        pool: Pool,
        hints: Hints,
        metrics: &AppendMetrics,
    ) -> (Self, impl Future<Output = ()> + Send + use<J>) {
        Self::with_retry_limits(journal, pool, hints, metrics, RetryLimits::default())
    }

    /// As [`Writer::new`], with other retry limits.
    pub fn with_retry_limits(
        journal: J,
        pool: Pool,
        hints: Hints,
        metrics: &AppendMetrics,
        limits: RetryLimits,
    ) -> (Self, impl Future<Output = ()> + Send + use<J>) {
        let (queue, arrivals) = mpsc::channel(J::QUEUE_MAX);
        let metrics = metrics.of(J::NAME);
        let context = CommitContext { journal, pool, metrics: metrics.clone(), limits };
        (Self { queue, space: Space::default(), metrics }, run_writer(context, hints, arrivals))
    }

    /// The same queue; it refuses commands while `space` reports a shortage.
    #[must_use]
    pub fn with_space(self, space: Space) -> Self {
        Self { space, ..self }
    }

    /// Appends a command. Waits first if the queue is full.
    ///
    /// # Errors
    /// [`Error::NoSpace`] while the disk is full, [`Error::Data`] when PostgreSQL refuses this command's
    /// data, [`Error::Unavailable`] when PostgreSQL could not be reached within the retry limits,
    /// [`Error::Stopped`] at shutdown.
    pub async fn append(&self, command: J::Command) -> Result<J::Answer, Error> {
        let answered = self.wait_and_queue(command).await?;
        self.space.observe(answered.await.map_err(|_| Error::Stopped)?)
    }

    /// Queues a command without waiting for its commit, for facts whose outcome no caller needs. Waits if the
    /// queue is full.
    ///
    /// # Errors
    /// [`Error::NoSpace`] while the disk is full; [`Error::Stopped`] at shutdown.
    pub async fn post(&self, command: J::Command) -> Result<(), Error> {
        self.wait_and_queue(command).await.map(drop)
    }

    async fn wait_and_queue(&self, command: J::Command) -> Result<Answered<J>, Error> {
        self.space.check(J::NAME)?;
        let place = self.queue.reserve().await.map_err(|_| Error::Stopped)?;
        Ok(self.enqueue(place, command))
    }

    fn enqueue(&self, place: Permit<'_, Waiting<J>>, command: J::Command) -> Answered<J> {
        let (answer, answered) = oneshot::channel();
        self.metrics.queued();
        place.send(Waiting { command, answer });
        answered
    }
}

/// State that every commit of one writer needs.
struct CommitContext<J> {
    journal: J,
    pool: Pool,
    metrics: WriterMetrics,
    limits: RetryLimits,
}

async fn run_writer<J: Journal>(
    context: CommitContext<J>,
    hints: Hints,
    mut arrivals: mpsc::Receiver<Waiting<J>>,
) {
    let _places = context.metrics.open(J::QUEUE_MAX);
    let mut pending = VecDeque::new();
    let mut started: Option<Instant> = None;
    loop {
        if pending.is_empty() {
            match arrivals.recv().await {
                Some(first) => pending.push_back(first),
                None => return,
            }
        }
        // Until the next commit may start, collect arriving commands; if it may start now, take only those
        // that wait already. The limit bounds memory: at most `QUEUE_MAX` commands wait here and as many in
        // the channel.
        let due = next_start(started, J::INTERVAL);
        while pending.len() < J::QUEUE_MAX {
            let more = match due {
                Some(due) => timeout_at(due, arrivals.recv()).await.ok().flatten(),
                None => arrivals.try_recv().ok(),
            };
            let Some(more) = more else { break };
            pending.push_back(more);
        }
        started = Some(Instant::now());
        let (commands, answers) = take_batch(&mut pending, context.journal.batch_weight_max());
        context.metrics.taken(commands.len());
        commit(&context, commands, answers).await;
        if J::WAKES_LOOPS {
            hints.written();
        }
    }
}

/// The earliest time at which the next commit may start; `None` when it may start now.
fn next_start(started: Option<Instant>, interval: Duration) -> Option<Instant> {
    started.map(|started| started + interval).filter(|due| *due > Instant::now())
}

type Answers<J> = Vec<oneshot::Sender<Result<<J as Journal>::Answer, Error>>>;

/// Takes commands from the front of the queue until the batch is full. At most one command per subject goes
/// into a batch; the other commands keep their order.
fn take_batch<J: Journal>(
    pending: &mut VecDeque<Waiting<J>>,
    weight_max: usize,
) -> (Vec<J::Command>, Answers<J>) {
    let mut commands: Vec<J::Command> = Vec::new();
    let mut answers = Vec::new();
    let mut later = VecDeque::new();
    let mut subjects: HashSet<String> = HashSet::new();
    let mut weight = 0;
    while let Some(waiting) = pending.pop_front() {
        let adds = J::weight(&waiting.command).max(1);
        // The first command goes in whatever its weight, or a heavy command would never be sent.
        if !commands.is_empty() && weight + adds > weight_max {
            pending.push_front(waiting);
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
    later.append(pending);
    *pending = later;
    (commands, answers)
}

async fn commit<J: Journal>(context: &CommitContext<J>, commands: Vec<J::Command>, answers: Answers<J>) {
    match guarded("journal_batch", J::NAME, send(context, &commands)).await {
        Ok(Ok(told)) => {
            debug_assert_eq!(told.len(), answers.len(), "a journal answers each command");
            for (answer, told) in answers.into_iter().zip(told) {
                // A caller that stopped waiting needs no answer.
                let _ = answer.send(Ok(told));
            }
        }
        // One bad command must not fail the other commands of its batch, so each is sent alone. During an
        // outage every attempt would fail, so the whole batch fails at once.
        failed if commands.len() > 1 && !matches!(&failed, Ok(Err(error)) if error.is_outage()) => {
            for (command, answer) in commands.into_iter().zip(answers) {
                let told =
                    guarded("journal_batch", J::NAME, send(context, std::slice::from_ref(&command))).await;
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

/// Delays between attempts while PostgreSQL is away. They do not end by themselves: the caller sets the
/// limit.
pub(super) fn retry_delays() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
}

/// Sends one batch until its outcome is known or the retry limits are reached.
async fn send<J: Journal>(
    context: &CommitContext<J>,
    commands: &[J::Command],
) -> Result<Vec<J::Answer>, Error> {
    let CommitContext { journal, pool, metrics, limits } = context;
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
                // An earlier attempt may have been committed between the lookup and this append, which then
                // found nothing new to store. The rows under this batch id hold the true answers.
                Ok(answers) if again => {
                    Ok(journal.lookup(&client, batch, commands).await?.unwrap_or(answers))
                }
                // The unique key on the batch id: an earlier attempt of this batch was committed after all.
                Err(Error::Data(e))
                    if e.sqlstate() == Some(tokio_postgres::error::SqlState::UNIQUE_VIOLATION.code()) =>
                {
                    journal.lookup(&client, batch, commands).await?.ok_or(Error::Data(e))
                }
                other => other,
            }
        };
        let outcome = tokio::time::timeout(limits.attempt, work).await;
        if !matches!(outcome, Ok(Ok(_) | Err(Error::Data(_)))) {
            // The connection is in an unknown state, so it does not go back to the pool.
            drop(deadpool_postgres::Object::take(client));
        }
        outcome.unwrap_or_else(|late| Err(Error::unavailable(late)))
    };
    let outcome = attempt
        .retry(retry_delays())
        // Disk space does not return within seconds. The callers get the error at once, and `Space` refuses
        // further commands.
        .when(|error: &Error| {
            error.is_transient() && !matches!(error, Error::NoSpace(_)) && started.elapsed() < limits.total
        })
        .notify(|error, after| {
            metrics.retried();
            tracing::warn!(journal = J::NAME, error = %error, ?after, "an attempt to commit a batch failed: trying again");
        })
        .await;
    metrics.committed(commands.len(), started.elapsed(), outcome.is_ok());
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(5);

    #[tokio::test(start_paused = true)]
    async fn only_a_command_that_arrives_within_the_interval_is_delayed() {
        assert_eq!(next_start(None, INTERVAL), None, "the first commit is not delayed");
        let started = Instant::now();
        assert_eq!(next_start(Some(started), Duration::ZERO), None);
        tokio::time::advance(Duration::from_millis(4)).await;
        assert_eq!(next_start(Some(started), INTERVAL), Some(started + INTERVAL));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(next_start(Some(started), INTERVAL), None, "a lone command is not delayed");
    }
}
