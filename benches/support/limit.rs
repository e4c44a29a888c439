//! The combined limit of signature checks and inserts, the reference for the best that this machine could do.

use std::time::Instant;

use nostr_sdk::JsonUtil as _;
use quipu::base::nostr_event::OfferedEvent;
use quipu::base::{NostrEvent, VerifiedEvent};
use quipu::store::owner;
use rayon::prelude::*;

use super::Server;

/// Rows per reference statement; more rows gain nothing.
const REFERENCE_BATCH: usize = 1_000;

/// The reference statement: it inserts the rows and does nothing else.
const UNNEST: &str = "
    WITH fresh AS (
        INSERT INTO events (created_at, number, kind, id, pubkey, sig, tagvalues, tags, content)
        SELECT created_at, quipu_event_number(created_at, $2 + place), kind, id, pubkey, sig,
               (SELECT array_agg((t ->> 0) || ':' || (t ->> 1)) FROM jsonb_array_elements(tags::jsonb) t WHERE length(t ->> 0) = 1),
               tags::jsonb, content
        FROM unnest($1::bigint[], $3::integer[], $4::bytea[], $5::bytea[], $6::bytea[], $7::text[], $8::text[]) WITH ORDINALITY
             AS o (created_at, kind, id, pubkey, sig, tags, content, place)
        ON CONFLICT DO NOTHING RETURNING number)
    INSERT INTO sightings (event, relay, seen) SELECT number, $9, 0 FROM fresh";

/// Signatures checked per second on all cores, and the verified events.
pub(crate) fn check_signatures(events: &[NostrEvent]) -> (Vec<VerifiedEvent>, f64) {
    let count = events.len() as f64;
    let started = Instant::now();
    let sound = events.par_iter().filter(|event| event.verify_signature()).count();
    let per_second = count / started.elapsed().as_secs_f64();
    assert_eq!(sound, events.len(), "the sample is signed");
    let verify = |event: &NostrEvent| VerifiedEvent::verify(&OfferedEvent::read(&event.as_json())?);
    let verified = events.iter().map(|event| verify(event).expect("it is signed")).collect();
    (verified, per_second)
}

/// Events per second by plain inserts into the tables of this server, several batches of them. Each `round`
/// uses its own numbers.
pub(crate) async fn insert_plain(server: &Server, events: &[VerifiedEvent], round: u64) -> f64 {
    let client = owner::connect(&server.superuser()).await.expect("the server answers");
    let statement = client.prepare(UNNEST).await.expect("the reference is right");
    // Slots that Quipu itself will not draw.
    let mut slot = 30_000_000_000_000 + i64::try_from(round * 1_000_000).expect("small");
    let relay = i32::try_from(1_000_000 + round).expect("small");
    let mut started = Instant::now();
    for (place, batch) in events.chunks(REFERENCE_BATCH).enumerate() {
        // The first batch warms the connection.
        if place == 1 {
            started = Instant::now();
        }
        let created_ats: Vec<i64> = batch.iter().map(|e| e.created_at).collect();
        slot += i64::try_from(REFERENCE_BATCH).expect("small");
        let kinds: Vec<i32> = batch.iter().map(|e| e.kind).collect();
        let ids: Vec<&[u8]> = batch.iter().map(|e| &e.id[..]).collect();
        let pubkeys: Vec<&[u8]> = batch.iter().map(|e| &e.pubkey[..]).collect();
        let sigs: Vec<&[u8]> = batch.iter().map(|e| &e.sig[..]).collect();
        let tags: Vec<&str> = batch.iter().map(|e| e.tags.as_str()).collect();
        let contents: Vec<&str> = batch.iter().map(|e| e.content.as_str()).collect();
        client
            .execute(
                &statement,
                &[&created_ats, &slot, &kinds, &ids, &pubkeys, &sigs, &tags, &contents, &relay],
            )
            .await
            .expect("the reference is stored");
    }
    (events.len() - REFERENCE_BATCH) as f64 / started.elapsed().as_secs_f64()
}
