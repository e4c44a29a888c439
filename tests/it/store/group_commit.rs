//! Group commit: callers share commits and are answered after them, and an error of one command fails that
//! command alone.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use quipu::store::Error;
use quipu::store::append::{Client, Journal, Writer};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::kit::{Kit, number};

/// The commands of one commit.
type Batch = Vec<(String, i32)>;

/// A number that makes the journal panic.
const PANICS: i32 = i32::MIN;

/// A journal of numbers whose table refuses negative ones. Commands are (subject, number).
#[derive(Clone)]
struct Numbers {
    gate: Arc<Semaphore>,
    batches: Arc<Mutex<Vec<Batch>>>,
}

impl Journal for Numbers {
    type Command = (String, i32);
    type Answer = i32;
    const NAME: &'static str = "numbers";
    const QUEUE_MAX: usize = 8;

    fn batch_weight_max(&self) -> usize {
        100
    }

    fn subject(command: &Self::Command) -> Option<&str> {
        (!command.0.is_empty()).then_some(&command.0)
    }

    async fn append(
        &self,
        client: &mut Client,
        batch: Uuid,
        commands: &[Self::Command],
    ) -> Result<Vec<i32>, Error> {
        self.gate.acquire().await.unwrap().forget();
        self.batches.lock().unwrap().push(commands.to_vec());
        let values: Vec<i32> = commands.iter().map(|(_, n)| *n).collect();
        assert!(!values.contains(&PANICS), "planted");
        let sql = "INSERT INTO numbers SELECT $1, o.slot, o.n FROM unnest($2::integer[]) WITH ORDINALITY AS o (n, slot)";
        client.execute_typed(sql, &[(&batch, Type::UUID), (&values, Type::INT4_ARRAY)]).await?;
        Ok(values)
    }

    async fn lookup(
        &self,
        client: &Client,
        batch: Uuid,
        commands: &[Self::Command],
    ) -> Result<Option<Vec<i32>>, Error> {
        let rows =
            client.query_typed("SELECT FROM numbers WHERE batch = $1", &[(&batch, Type::UUID)]).await?;
        Ok((!rows.is_empty()).then(|| commands.iter().map(|(_, n)| *n).collect()))
    }
}

struct Bench {
    kit: Kit,
    numbers: Numbers,
    writer: Writer<Numbers>,
}

impl Bench {
    /// `commits`: number of batches that may be sent before the test permits more.
    async fn new(commits: usize) -> Self {
        let mut kit = Kit::new().await;
        let owner = kit.database.owner().await;
        let table =
            "CREATE TABLE numbers (batch uuid, slot bigint, n integer CHECK (n >= 0), UNIQUE (batch, slot));
                     GRANT SELECT, INSERT ON numbers TO quipu";
        owner.batch_execute(table).await.unwrap();
        let numbers = Numbers { gate: Arc::new(Semaphore::new(commits)), batches: Arc::default() };
        let writer = kit.writer(numbers.clone());
        Self { kit, numbers, writer }
    }

    fn batches(&self) -> Vec<Batch> {
        self.numbers.batches.lock().unwrap().clone()
    }

    /// Starts a caller.
    fn call(&self, callers: &mut JoinSet<(i32, Result<i32, Error>)>, subject: &str, n: i32) {
        let (writer, subject) = (self.writer.clone(), subject.to_owned());
        callers.spawn(async move { (n, writer.append((subject, n)).await) });
    }
}

#[tokio::test]
async fn an_answer_comes_after_the_commit() {
    let bench = Bench::new(1_000).await;
    let reader = bench.kit.database.service().await;
    for n in 0..50 {
        assert_eq!(bench.writer.append((String::new(), n)).await.unwrap(), n);
        let there = reader.query_one("SELECT count(*) FROM numbers WHERE n = $1", &[&n]).await.unwrap();
        assert_eq!(there.get::<_, i64>(0), 1, "{n} was answered and another connection does not see it");
    }
}

#[tokio::test]
async fn many_callers_share_few_commits() {
    let bench = Bench::new(1_000).await;
    let mut callers = JoinSet::new();
    for n in 0..400 {
        bench.call(&mut callers, "", n);
    }
    let answers = callers.join_all().await;
    assert!(answers.iter().all(|(n, told)| told.as_ref().is_ok_and(|told| told == n)));
    let owner = bench.kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(DISTINCT n) FROM numbers").await, 400);
    assert_eq!(number(&owner, "SELECT count(*) FROM numbers").await, 400);
    let commits = number(&owner, "SELECT count(DISTINCT xmin::text) FROM numbers").await;
    assert!(commits <= 100, "400 commands took {commits} commits");
}

#[tokio::test]
async fn a_data_error_refuses_its_command_alone() {
    let bench = Bench::new(0).await;
    let mut callers = JoinSet::new();
    // The first batch waits for a permit while the other commands arrive.
    bench.call(&mut callers, "", 0);
    for n in [1, 2, -3, 4, 5] {
        bench.call(&mut callers, "", n);
    }
    bench.numbers.gate.add_permits(1_000);
    for (n, told) in callers.join_all().await {
        match told {
            Ok(told) => assert_eq!(told, n),
            Err(Error::Data(error)) => {
                assert_eq!(n, -3);
                assert_eq!(error.sqlstate(), Some(tokio_postgres::error::SqlState::CHECK_VIOLATION.code()));
            }
            Err(other) => panic!("{n}: {other}"),
        }
    }
    let owner = bench.kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT sum(n) FROM numbers").await, 12);
}

#[tokio::test]
async fn a_panic_over_one_command_fails_it_alone_and_the_writer_continues() {
    let bench = Bench::new(0).await;
    let mut callers = JoinSet::new();
    bench.call(&mut callers, "", 0);
    for n in [1, 2, PANICS, 4, 5] {
        bench.call(&mut callers, "", n);
    }
    bench.numbers.gate.add_permits(1_000);
    for (n, told) in callers.join_all().await {
        match told {
            Ok(told) => assert_eq!(told, n),
            Err(error) => assert!(n == PANICS && error.to_string().contains("planted"), "{n}: {error}"),
        }
    }
    assert_eq!(bench.writer.append((String::new(), 6)).await.unwrap(), 6);
    let owner = bench.kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT sum(n) FROM numbers").await, 18);
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait_and_loses_nothing() {
    let bench = Bench::new(0).await;
    let mut callers = JoinSet::new();
    for n in 0..100 {
        let writer = bench.writer.clone();
        callers.spawn(async move { writer.post((String::new(), n)).await });
    }
    // While no commit is possible, the batch in progress and the queue are full, and all other callers wait.
    let mut accepted = 0;
    for _ in 0..1_000 {
        while let Some(told) = callers.try_join_next() {
            told.unwrap().unwrap();
            accepted += 1;
        }
        tokio::task::yield_now().await;
    }
    assert!((Numbers::QUEUE_MAX..=2 * Numbers::QUEUE_MAX).contains(&accepted), "{accepted}");
    bench.numbers.gate.add_permits(1_000);
    for told in callers.join_all().await {
        told.unwrap();
    }
    // Commands are committed in their order, so all others are stored when the last one is.
    assert_eq!(bench.writer.append((String::new(), 100)).await.unwrap(), 100);
    let owner = bench.kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(*) FROM numbers").await, 101);
}

#[tokio::test]
async fn a_subject_occurs_at_most_once_in_a_batch_and_its_commands_keep_their_order() {
    let bench = Bench::new(0).await;
    let mut callers = JoinSet::new();
    bench.call(&mut callers, "first", 0);
    for (subject, n) in [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("a", 5), ("b", 6)] {
        bench.call(&mut callers, subject, n);
        tokio::task::yield_now().await;
    }
    bench.numbers.gate.add_permits(1_000);
    assert!(callers.join_all().await.iter().all(|(_, told)| told.is_ok()));
    let batches = bench.batches();
    for batch in &batches {
        let subjects: HashSet<&str> = batch.iter().map(|(subject, _)| subject.as_str()).collect();
        assert_eq!(subjects.len(), batch.len(), "{batches:?}");
    }
    for (subject, expected) in [("a", vec![1, 3, 5]), ("b", vec![2, 6])] {
        let order: Vec<i32> = batches.iter().flatten().filter(|c| c.0 == subject).map(|c| c.1).collect();
        assert_eq!(order, expected, "{batches:?}");
    }
}

#[tokio::test]
async fn shutting_down_answers_everything_that_was_accepted() {
    let bench = Bench::new(0).await;
    let mut callers = JoinSet::new();
    for n in 0..40 {
        bench.call(&mut callers, "", n);
    }
    let Bench { mut kit, numbers, writer } = bench;
    drop(writer);
    numbers.gate.add_permits(1_000);
    let answers = callers.join_all().await;
    assert_eq!(answers.len(), 40);
    assert!(answers.iter().all(|(n, told)| told.as_ref().is_ok_and(|told| told == n)));
    // The writer has no handle left, so it ends by itself.
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), kit.tasks.join_next()).await;
    assert!(ended.is_ok_and(|task| task.is_some_and(|ended| ended.is_ok())));
}
