//! Commits entries to `job_files`, the journal of files, and reads what uploads and completions are decided by.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::services::jobs::command::FileEntry;
use crate::services::jobs::event::{FileFacts, FileKind};
use crate::store::append::{Client, Journal};
use crate::store::{Error, Pools};

const APPEND: &str = "-- append_job_files
    INSERT INTO job_files (id, kind, key, job, attempt, size, sha256, is_bound, etag, content_type, actor, why)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::integer[], $6::bigint[], $7::bytea[], $8::boolean[],
                         $9::text[], $10::text[], $11::text[], $12::text[])
    ON CONFLICT (id) DO NOTHING";

/// The journal of files.
#[derive(Debug)]
pub struct FileJournal;

impl Journal for FileJournal {
    type Command = FileEntry;
    type Answer = ();
    const NAME: &'static str = "job_files";
    const QUEUE_MAX: usize = 1_024;

    fn batch_weight_max(&self) -> usize {
        256
    }

    fn subject(_: &FileEntry) -> Option<&str> {
        None
    }

    async fn append(&self, client: &mut Client, _: Uuid, entries: &[FileEntry]) -> Result<Vec<()>, Error> {
        let ids: Vec<Uuid> = entries.iter().map(|e| e.id).collect();
        let kinds: Vec<&str> = entries.iter().map(|e| e.kind.as_str()).collect();
        let keys: Vec<&str> = entries.iter().map(|e| e.key.as_str()).collect();
        let jobs: Vec<Option<i64>> = entries.iter().map(|e| e.output_of.map(|of| of.0)).collect();
        let attempts: Vec<Option<i32>> = entries.iter().map(|e| e.output_of.map(|of| of.1)).collect();
        let sizes: Vec<Option<i64>> = entries.iter().map(|e| e.size).collect();
        let sha256s: Vec<Option<&[u8]>> = entries.iter().map(|e| e.sha256.as_ref().map(|s| &s[..])).collect();
        let are_bound: Vec<bool> = entries.iter().map(|e| e.is_bound).collect();
        let etags: Vec<Option<&str>> = entries.iter().map(|e| e.etag.as_deref()).collect();
        let types: Vec<Option<&str>> = entries.iter().map(|e| e.content_type.as_deref()).collect();
        let actors: Vec<&str> = entries.iter().map(|e| e.actor.as_str()).collect();
        let whys: Vec<Option<&str>> = entries.iter().map(|e| e.why.as_deref()).collect();
        client
            .execute_typed(
                APPEND,
                &[
                    (&ids, Type::UUID_ARRAY),
                    (&kinds, Type::TEXT_ARRAY),
                    (&keys, Type::TEXT_ARRAY),
                    (&jobs, Type::INT8_ARRAY),
                    (&attempts, Type::INT4_ARRAY),
                    (&sizes, Type::INT8_ARRAY),
                    (&sha256s, Type::BYTEA_ARRAY),
                    (&are_bound, Type::BOOL_ARRAY),
                    (&etags, Type::TEXT_ARRAY),
                    (&types, Type::TEXT_ARRAY),
                    (&actors, Type::TEXT_ARRAY),
                    (&whys, Type::TEXT_ARRAY),
                ],
            )
            .await?;
        Ok(vec![(); entries.len()])
    }

    /// Always `None`, so the batch is sent again: an entry has its id before.
    async fn lookup(&self, _: &Client, _: Uuid, _: &[FileEntry]) -> Result<Option<Vec<()>>, Error> {
        Ok(None)
    }
}

/// The newest entry of each key that is of one of these kinds.
pub async fn file_facts(
    pools: &Pools,
    keys: &[String],
    kinds: &[FileKind],
) -> Result<HashMap<String, FileFacts>, Error> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let words: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- job_file_facts
             SELECT k.key, f.kind, f.size, f.sha256, f.is_bound FROM unnest($1::text[]) AS k (key)
             CROSS JOIN LATERAL (SELECT * FROM job_files f WHERE f.key = k.key AND f.kind = ANY ($2)
                                 ORDER BY f.position DESC LIMIT 1) f",
            &[(&keys, Type::TEXT_ARRAY), (&words, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let word: &str = row.get(1);
            let unknown = || Error::inconsistent("job_files", format!("the kind {word} is unknown"));
            let kind = FileKind::parse(word).ok_or_else(unknown)?;
            let sha256: Option<Vec<u8>> = row.get(3);
            let sha256 = sha256.and_then(|sha256| sha256.try_into().ok());
            Ok((row.get(0), FileFacts { kind, size: row.get(2), sha256, is_bound: row.get(4) }))
        })
        .collect()
}

/// The lease of a running job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLease {
    /// Its number among the leases of the job.
    pub attempt: i32,
    /// The claim by which it was taken.
    pub claim: Uuid,
    /// The worker that holds it.
    pub worker: Option<String>,
}

/// The lease that is held of a job; `None` if the job is not running.
pub async fn held_lease(pools: &Pools, job: i64) -> Result<Option<HeldLease>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- held_job_lease
             SELECT l.attempt, l.claim, l.worker
             FROM (SELECT * FROM job_log WHERE job = $1 ORDER BY step DESC LIMIT 1) l WHERE l.claim IS NOT NULL",
            &[(&job, Type::INT8)],
        )
        .await?;
    Ok(rows.first().map(|row| HeldLease { attempt: row.get(0), claim: row.get(1), worker: row.get(2) }))
}

/// A source whose upload to the bucket was allowed and that was not checked since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UncheckedSource {
    /// Position of the entry by which it was allowed.
    pub position: i64,
    /// Its key.
    pub key: String,
    /// Whether the bucket accepts no other content than that of its key.
    pub is_bound: bool,
}

/// At most `most` sources whose upload was allowed after `after`, and that are to be checked. One whose content the
/// bucket does not check is read as soon as it is there, and again when the URL is no longer valid after
/// `lifetime_s`, because it can be replaced until then; a later URL whose content is bound changes nothing about
/// that.
pub async fn unchecked_sources(
    pools: &Pools,
    after: i64,
    lifetime_s: f64,
    most: i64,
) -> Result<Vec<UncheckedSource>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- unchecked_job_sources
             SELECT a.position, a.key, a.is_bound FROM job_files a
             WHERE a.position > $1 AND a.kind = 'announced' AND a.job IS NULL
               AND a.recorded_at > clock_timestamp() - make_interval(secs => 2 * $2 + 3600)
               AND NOT EXISTS (SELECT FROM job_files c WHERE c.key = a.key AND c.position > a.position
                               AND (a.is_bound AND c.kind IN ('announced', 'verified')
                                 OR NOT c.is_bound AND (c.kind = 'announced'
                                   OR c.kind = 'verified' AND (clock_timestamp() < a.recorded_at + make_interval(secs => $2)
                                                               OR c.recorded_at >= a.recorded_at + make_interval(secs => $2)))))
             ORDER BY a.position LIMIT $3",
            &[(&after, Type::INT8), (&lifetime_s, Type::FLOAT8), (&most, Type::INT8)],
        )
        .await?;
    let source = |row: &Row| UncheckedSource { position: row.get(0), key: row.get(1), is_bound: row.get(2) };
    Ok(rows.iter().map(source).collect())
}
