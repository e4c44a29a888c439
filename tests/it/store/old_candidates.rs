//! V25 on a database with candidates: each gets a domain, and a replay of the journal gives the same one.

use quipu::store::owner;
use tokio::task::JoinSet;

use super::kit::{Kit, texts};
use super::old_numbers::migrate_to;
use crate::support::database::{TestDatabase, procedures};

/// The last migration without domains.
const OLD: i32 = 24;

const FILL: &str = "
    INSERT INTO relay_log (batch, slot, kind, url, network, detail)
    SELECT gen_random_uuid(), 0, 'found', url, network, '{\"source\": \"event\"}'
    FROM (VALUES ('wss://a.b.example.com', 'clearnet'), ('wss://example.com:8080/inbox', 'clearnet'), ('ws://local', 'clearnet'),
                 ('wss://one.example.co.uk', 'clearnet'), ('ws://192.0.2.7:7000', 'clearnet'), ('ws://[2001:db8::7]/x', 'clearnet'),
                 ('ws://2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion', 'tor')) AS f (url, network);
    INSERT INTO candidates (url, network, found_at, source) SELECT url, network, recorded_at, detail ->> 'source' FROM relay_log;";

#[tokio::test]
async fn candidates_of_the_old_schema_get_the_domain_that_a_replay_gives() {
    let database = TestDatabase::empty().await;
    migrate_to(&database, OLD).await;
    database.owner().await.batch_execute(FILL).await.unwrap();
    owner::migrate(database.urls().owner().unwrap(), &procedures("bigbrotr")).await.unwrap();
    let client = database.owner().await;
    let domains = texts(&client, "SELECT domain FROM candidates ORDER BY url").await;
    let expected = [
        "192.0.2.7",
        "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion",
        "[2001:db8::7]",
        "local",
        "example.com",
        "example.com",
        "co.uk",
    ];
    assert_eq!(domains, expected);
    let kit = Kit { pools: database.pools(), tasks: JoinSet::new(), database };
    assert_eq!(kit.problems().await, Vec::<String>::new());
}
