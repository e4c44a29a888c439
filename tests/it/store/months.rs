//! Monthly partitions: every event is in the partition of its month, and moving it there changes nothing.

use nostr_sdk::Keys;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::kit::{Kit, ingest_journal, note, number, page, texts};

/// 2028-01-01.
const YEAR_2028: u64 = 1_830_297_600;

/// Creates the months, and repeats it while another session holds the lock for longer than the function waits
/// (500 ms), as the ticker does.
async fn ensure_months(client: &Client, now_s: u64) -> i32 {
    loop {
        match client.query_one("SELECT quipu_ensure_months($1)", &[&now_s.cast_signed()]).await {
            Ok(row) => return row.get(0),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// The partitions of an event and its sighting.
async fn partitions_of(client: &Client, created_at: u64) -> Vec<String> {
    let sql = format!(
        "SELECT tableoid::regclass::text FROM events WHERE created_at = {created_at}
         UNION ALL SELECT tableoid::regclass::text FROM sightings
         WHERE event IN (SELECT number FROM events WHERE created_at = {created_at}) ORDER BY 1"
    );
    texts(client, &sql).await
}

#[tokio::test]
async fn events_of_every_age_are_in_their_month_and_move_there_unchanged() {
    let mut kit = Kit::new().await;
    let relay = kit.relays(&["one"]).await[0];
    let writer = kit.writer(ingest_journal());
    let keys = Keys::generate();
    let december_2029 = YEAR_2028 + 2 * 366 * 86_400 - 20 * 86_400;
    let times = [
        0,
        1,
        1_604_188_799,
        1_604_188_800,
        1_709_251_199,
        1_709_251_200,
        1_798_761_599,
        1_798_761_600,
        december_2029,
        4_102_444_800,
        i64::MAX.cast_unsigned(),
    ];
    let events: Vec<_> = times.iter().map(|at| note(&keys, *at, "when")).collect();
    assert_eq!(writer.append(page(Some(relay), &events)).await.unwrap().stored, 11);
    let service = kit.database.service().await;
    let rows = "SELECT e::text FROM events e UNION ALL SELECT s::text FROM sightings s ORDER BY 1";
    let before = texts(&service, rows).await;
    assert_eq!(before.len(), 22);
    for (at, suffix) in [
        (0, "past"),
        (1_604_188_799, "past"),
        (1_604_188_800, "y2020m11"),
        (1_709_251_199, "y2024m02"),
        (1_709_251_200, "y2024m03"),
        (1_798_761_599, "y2026m12"),
        (1_798_761_600, "future"),
        (december_2029, "future"),
        (4_102_444_800, "future"),
        (i64::MAX.cast_unsigned(), "future"),
    ] {
        assert_eq!(
            partitions_of(&service, at).await,
            ["events", "sightings"].map(|family| format!("partitions.{family}_{suffix}"))
        );
    }

    // Two processes at once: one creates the partitions, the other finds them.
    let other = kit.database.service().await;
    let (one, two) = tokio::join!(ensure_months(&service, YEAR_2028), ensure_months(&other, YEAR_2028));
    assert_eq!(one.max(two), 37, "2027-01 to 2030-01");
    assert_eq!(one.min(two), 0);
    for (at, suffix) in [(1_798_761_600, "y2027m01"), (december_2029, "y2029m12"), (4_102_444_800, "future")]
    {
        assert_eq!(
            partitions_of(&service, at).await,
            ["events", "sightings"].map(|family| format!("partitions.{family}_{suffix}"))
        );
    }
    assert_eq!(texts(&service, rows).await, before);
    assert_eq!(ensure_months(&service, YEAR_2028).await, 0);

    let told = writer.append(page(Some(relay), &events)).await.unwrap();
    assert_eq!(told.stored, 0, "moved events are still known");
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn ingest_continues_while_months_are_created() {
    let mut kit = Kit::new().await;
    let writer = kit.writer(ingest_journal());
    let keys = Keys::generate();
    let service = kit.database.service().await;
    let writing = async {
        for n in 0..40 {
            let told =
                writer.append(page(None, &[note(&keys, YEAR_2028 + n * 86_400, "ahead")])).await.unwrap();
            assert_eq!(told.stored, 1);
        }
    };
    let making = async {
        for years in 0..3 {
            ensure_months(&service, YEAR_2028 + years * 366 * 86_400).await;
        }
    };
    tokio::join!(writing, making);
    assert_eq!(number(&service, "SELECT count(*) FROM events").await, 40);
    assert_eq!(number(&service, "SELECT count(*) FROM partitions.events_future").await, 0);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}
