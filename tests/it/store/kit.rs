//! Helpers of the store's tests: a database, connection pools, and writers that end with the test.

use nostr_sdk::{Event, EventBuilder, JsonUtil as _, Keys, Kind, Timestamp};
use quipu::app::registry;
use quipu::base::nostr_event::OfferedEvent;
use quipu::base::{RelayUrl, Secret, VerifiedEvent};
use quipu::sample::SampleGenerator;
use quipu::services::archive::command::RelayCommand;
use quipu::services::archive::{RelayAnswer, RelayJournal};
use quipu::store::append::{Journal, RetryLimits, Writer};
use quipu::store::ingest::{IngestJournal, IngestMetrics, IngestPage, Intake, Source};
use quipu::store::projection::{Projection, Upkeep};
use quipu::store::tick::Ticker;
use quipu::store::{AppendMetrics, Hints, PoolSizes, Pools, Relay};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

/// A database and the tasks that use it.
pub(crate) struct Kit {
    pub(crate) pools: Pools,
    pub(crate) tasks: JoinSet<()>,
    pub(crate) database: TestDatabase,
}

impl Kit {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::new().await;
        Self { pools: database.pools(), tasks: JoinSet::new(), database }
    }

    /// A kit whose write pool connects through a proxy.
    pub(crate) fn through(database: TestDatabase, write: Secret) -> Self {
        let urls = quipu::store::DatabaseUrls { write, ..database.urls() };
        let pools = Pools::open(&urls, PoolSizes { write: 3, session: 1, read: 1 }).unwrap();
        Self { pools, tasks: JoinSet::new(), database }
    }

    pub(crate) fn writer<J: Journal>(&mut self, journal: J) -> Writer<J> {
        self.writer_with_limits(journal, RetryLimits::default())
    }

    pub(crate) fn writer_with_limits<J: Journal>(&mut self, journal: J, limits: RetryLimits) -> Writer<J> {
        let (pool, hints, metrics) = (self.pools.write.clone(), Hints::default(), AppendMetrics::default());
        let (writer, task) = Writer::with_retry_limits(journal, pool, hints, &metrics, limits);
        self.tasks.spawn(task);
        writer
    }

    pub(crate) fn intake(&mut self) -> Intake {
        let writer = self.writer(ingest_journal());
        Intake::new(self.pools.write.clone(), writer, IngestMetrics::default())
    }

    /// Adds relays, numbered in the order of `names`.
    pub(crate) async fn relays(&mut self, names: &[&str]) -> Vec<Relay> {
        let writer = self.writer(RelayJournal);
        let mut relays = Vec::new();
        for name in names {
            match writer.append(add(name)).await.unwrap() {
                RelayAnswer::Known { relay, .. } => relays.push(relay),
                RelayAnswer::Recorded | RelayAnswer::Found(_) => panic!("an addition answers with a number"),
            }
        }
        relays
    }

    /// The fencing token of a relay's lease, taken for an hour.
    pub(crate) async fn fence(&self, relay: Relay) -> i64 {
        let name = format!("synchronizer/{}", relay.0);
        let client = quipu::store::owner::connect(self.database.urls().owner().unwrap()).await.unwrap();
        let take = "INSERT INTO lease (name, holder, token, expires_at)
                    VALUES ($1, gen_random_uuid(), nextval('lease_token'), now() + interval '1 hour')
                    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = excluded.token RETURNING token";
        client.query_one(take, &[&name]).await.unwrap().get(0)
    }

    pub(crate) async fn ticker(&self) -> Ticker {
        Ticker::new(self.pools.write.clone()).await.unwrap()
    }

    /// Takes ticks and projects until nothing is left to apply.
    pub(crate) async fn project(&self) {
        self.ticker().await.take().await.unwrap();
        for projection in registry::projections().filter(|projection| projection.upkeep == Upkeep::Ticks) {
            while projection.catch_up(&self.pools.write).await.unwrap() {}
        }
    }

    /// The problems that `quipu verify` reports.
    pub(crate) async fn problems(&self) -> Vec<String> {
        let findings = registry::verify_tables(self.database.urls().owner().unwrap()).await.unwrap();
        findings.into_iter().flat_map(|finding| finding.problems).collect()
    }

    /// Waits until `backends` backends of this database wait for a lock. Uses its own connection: inside a
    /// transaction PostgreSQL would return the same snapshot each time.
    pub(crate) async fn waiting(&self, backends: i64) {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let watcher = self.superuser().await;
        eventually("backends wait for locks", || async { number(&watcher, sql).await >= backends }).await;
    }

    pub(crate) async fn superuser(&self) -> Client {
        quipu::store::owner::connect(&self.database.superuser_url()).await.unwrap()
    }
}

/// The journal of events, configured as importers and crawlers do.
pub(crate) fn ingest_journal() -> IngestJournal {
    IngestJournal { source: Source::Relay, batch_events_max: 2_000 }
}

/// The projection that follows ticks.
pub(crate) fn totals() -> Projection {
    projection("totals")
}

pub(crate) fn projection(name: &str) -> Projection {
    *registry::projections().find(|projection| projection.name == name).unwrap()
}

pub(crate) fn add(name: &str) -> RelayCommand {
    RelayCommand::Add {
        url: RelayUrl::parse(&format!("wss://{name}.example.com")).unwrap(),
        source: "operator",
    }
}

/// Signed sample events.
pub(crate) fn sample(seed: u64, count: u64) -> Vec<Event> {
    SampleGenerator::paced(seed, count).collect()
}

/// A note at a given time.
pub(crate) fn note(keys: &Keys, created_at: u64, content: &str) -> Event {
    EventBuilder::new(Kind::TextNote, content)
        .custom_created_at(Timestamp::from_secs(created_at))
        .sign_with_keys(keys)
        .unwrap()
}

/// Events as a relay offers them.
pub(crate) fn offered(events: &[Event]) -> Vec<OfferedEvent> {
    events.iter().map(|event| OfferedEvent::read(&event.as_json()).unwrap()).collect()
}

/// A page as the intake passes it to the writer.
pub(crate) fn page(relay: Option<Relay>, events: &[Event]) -> IngestPage {
    let fresh = offered(events).iter().map(|event| VerifiedEvent::verify(event).unwrap()).collect();
    IngestPage { relay, fresh, ..IngestPage::default() }
}

/// Runs a query that returns one number.
pub(crate) async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Runs a query that returns one text column.
pub(crate) async fn texts(client: &Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}
