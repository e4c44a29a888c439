//! Appends to `relay_log` (facts about relays), `sync_log` (outcomes of windows) and `relay_metadata`
//! (snapshots), and maintains candidates.

mod candidates;
mod metadata;
pub(super) mod visits;

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

pub use candidates::Finding;
pub(super) use candidates::{claim_list, put_off};
pub use metadata::MetadataJournal;

use candidates::Candidates;

use super::command::{RelayCommand, WindowCommand};
use crate::store::append::{Client, Journal};
use crate::store::{Error, Relay};

const BATCH_MAX: usize = 2_000;

/// Answer to a [`RelayCommand`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayAnswer {
    /// The relay is known.
    Known {
        /// `relays.number`.
        relay: Relay,
        /// False if it was known before this command.
        is_new: bool,
    },
    /// The fact is recorded.
    Recorded,
    /// The outcome for a URL named by an event or a list.
    Found(Finding),
}

/// The journal `relay_log`.
#[derive(Debug)]
pub struct RelayJournal;

const ADD: &str = "-- add_relays\nSELECT numbers, added FROM insert_relay_batch($1, $2, $3, $4)";

const RECORD: &str = "-- record_relay_facts\nSELECT quipu_record_relay_facts($1, $2, $3, $4, $5)";

const ADDED_BEFORE: &str = "-- relays_added_before
    SELECT r.url, r.number, l.relay IS NOT NULL FROM unnest($2::text[]) AS o (url) JOIN relays r ON r.url = o.url
    LEFT JOIN relay_log l ON l.batch = $1 AND l.relay = r.number AND l.kind = 'added'";

const RECORDED_BEFORE: &str = "-- relay_facts_recorded_before
    SELECT count(*) FROM relay_log
    WHERE batch = $1 AND kind IN ('retired', 'restored', 'refused', 'observed') AND slot = 0";

/// The additions of a batch, one array per column.
#[derive(Default)]
struct Additions<'a> {
    urls: Vec<&'a str>,
    networks: Vec<&'static str>,
    sources: Vec<&'static str>,
}

/// All other commands about known relays, one array per column.
#[derive(Default)]
struct Records<'a> {
    slots: Vec<i32>,
    relays: Vec<i32>,
    kinds: Vec<&'static str>,
    details: Vec<&'a Value>,
}

/// The commands of a batch, grouped by the statement that appends them.
struct Batch<'a> {
    adds: Additions<'a>,
    records: Records<'a>,
    candidates: Candidates<'a>,
}

fn split(commands: &[RelayCommand]) -> Batch<'_> {
    let mut adds = Additions::default();
    let mut records = Records::default();
    let mut candidates = Candidates::default();
    for command in commands {
        let (relay, kind, detail) = match command {
            RelayCommand::Add { url, source } => {
                adds.urls.push(url.as_str());
                adds.networks.push(url.network().as_str());
                adds.sources.push(source);
                continue;
            }
            RelayCommand::Retire { relay, detail } => (relay, "retired", detail),
            RelayCommand::Restore { relay, detail } => (relay, "restored", detail),
            RelayCommand::Refuse { relay, detail } => (relay, "refused", detail),
            RelayCommand::Observe { relay, detail } => (relay, "observed", detail),
            RelayCommand::Find { .. } | RelayCommand::Drop { .. } => {
                candidates.take(command);
                continue;
            }
        };
        records.relays.push(relay.0);
        records.kinds.push(kind);
        records.details.push(detail);
    }
    records.slots = (0..).take(records.relays.len()).collect();
    Batch { adds, records, candidates }
}

fn answers(
    commands: &[RelayCommand],
    known: &HashMap<String, (i32, bool)>,
    found: &HashMap<String, Finding>,
) -> Vec<RelayAnswer> {
    let answer = |command: &RelayCommand| match command {
        RelayCommand::Add { url, .. } => {
            known.get(url.as_str()).map_or(RelayAnswer::Recorded, |(n, is_new)| RelayAnswer::Known {
                relay: Relay(*n),
                is_new: *is_new,
            })
        }
        RelayCommand::Find { url, .. } => {
            RelayAnswer::Found(found.get(url.as_str()).copied().unwrap_or(Finding::Known))
        }
        RelayCommand::Retire { .. }
        | RelayCommand::Restore { .. }
        | RelayCommand::Refuse { .. }
        | RelayCommand::Observe { .. }
        | RelayCommand::Drop { .. } => RelayAnswer::Recorded,
    };
    commands.iter().map(answer).collect()
}

impl Batch<'_> {
    /// Number of SQL statements.
    fn statements(&self) -> usize {
        let records = usize::from(!self.records.slots.is_empty());
        usize::from(!self.adds.urls.is_empty()) + records + self.candidates.statements()
    }

    /// Runs the statements. Returns the row of the additions, and the outcome for each found URL.
    async fn append(
        &self,
        client: &impl GenericClient,
        batch: Uuid,
    ) -> Result<(Vec<Row>, HashMap<String, Finding>), Error> {
        let Self { adds, records, candidates } = self;
        let mut added = Vec::new();
        if !adds.urls.is_empty() {
            let add: [(&(dyn ToSql + Sync), Type); 4] = [
                (&batch, Type::UUID),
                (&adds.urls, Type::TEXT_ARRAY),
                (&adds.networks, Type::TEXT_ARRAY),
                (&adds.sources, Type::TEXT_ARRAY),
            ];
            added = client.query_typed(ADD, &add).await?;
        }
        let found = candidates.append(client, batch).await?;
        if !records.slots.is_empty() {
            let record: [(&(dyn ToSql + Sync), Type); 5] = [
                (&batch, Type::UUID),
                (&records.slots, Type::INT4_ARRAY),
                (&records.relays, Type::INT4_ARRAY),
                (&records.kinds, Type::TEXT_ARRAY),
                (&records.details, Type::JSONB_ARRAY),
            ];
            client.query_typed(RECORD, &record).await?;
        }
        Ok((added, found))
    }
}

impl Journal for RelayJournal {
    type Command = RelayCommand;
    type Answer = RelayAnswer;
    const NAME: &'static str = "relay_log";
    const QUEUE_MAX: usize = 2 * BATCH_MAX;

    fn batch_weight_max(&self) -> usize {
        BATCH_MAX
    }

    fn subject(command: &RelayCommand) -> Option<&str> {
        match command {
            RelayCommand::Add { url, .. } | RelayCommand::Find { url, .. } => Some(url.as_str()),
            RelayCommand::Drop { url, .. } => Some(url),
            RelayCommand::Retire { .. }
            | RelayCommand::Restore { .. }
            | RelayCommand::Refuse { .. }
            | RelayCommand::Observe { .. } => None,
        }
    }

    async fn append(
        &self,
        client: &mut Client,
        batch: Uuid,
        commands: &[RelayCommand],
    ) -> Result<Vec<RelayAnswer>, Error> {
        let parts = split(commands);
        // A single statement is its own transaction: one round trip.
        let (added, found) = if parts.statements() == 1 {
            parts.append(&***client, batch).await?
        } else {
            let transaction = client.transaction().await?;
            let appended = parts.append(&*transaction, batch).await?;
            transaction.commit().await?;
            appended
        };
        Ok(answers(commands, &known(&parts.adds, &added), &found))
    }

    async fn lookup(
        &self,
        client: &Client,
        batch: Uuid,
        commands: &[RelayCommand],
    ) -> Result<Option<Vec<RelayAnswer>>, Error> {
        let Batch { adds, records, candidates } = split(commands);
        if !records.slots.is_empty() {
            let rows = client.query_typed(RECORDED_BEFORE, &[(&batch, Type::UUID)]).await?;
            let recorded: i64 = rows.first().map_or(0, |row| row.get(0));
            if recorded == 0 {
                return Ok(None);
            }
        }
        let found = if candidates.statements() == 0 {
            HashMap::new()
        } else {
            match candidates.lookup(client, batch).await? {
                Some(found) => found,
                // The other facts prove that the batch was committed, so none of its candidates was new.
                None if !records.slots.is_empty() => candidates.all_known(),
                None => return Ok(None),
            }
        };
        if adds.urls.is_empty() {
            return Ok(Some(answers(commands, &HashMap::new(), &found)));
        }
        let rows =
            client.query_typed(ADDED_BEFORE, &[(&batch, Type::UUID), (&adds.urls, Type::TEXT_ARRAY)]).await?;
        // Adding is idempotent, so a batch whose additions are not all present is sent again.
        if rows.len() < adds.urls.len() {
            return Ok(None);
        }
        let known = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
        Ok(Some(answers(commands, &known, &found)))
    }
}

fn known(adds: &Additions<'_>, rows: &[Row]) -> HashMap<String, (i32, bool)> {
    let Some(row) = rows.first() else { return HashMap::new() };
    let (numbers, added): (Option<Vec<i32>>, Option<Vec<bool>>) = (row.get(0), row.get(1));
    let numbered = numbers.unwrap_or_default().into_iter().zip(added.unwrap_or_default());
    adds.urls.iter().map(ToString::to_string).zip(numbered).collect()
}

/// Answer to a [`WindowCommand`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowAnswer {
    /// The window is recorded.
    Recorded,
    /// The window is not recorded: the relay's lease expired or was taken by another process.
    LeaseLost,
}

/// The journal `sync_log`.
#[derive(Debug)]
pub struct SyncJournal;

// The row of the lease stays locked until the commit, so that no process takes the relay over in between.
const WINDOWS: &str = "-- record_windows
    WITH held AS MATERIALIZED (
        SELECT l.name, l.token FROM lease l
        WHERE l.name = ANY (SELECT 'synchronizer/' || r FROM unnest($2::integer[]) r) AND l.expires_at > clock_timestamp()
        ORDER BY l.name FOR SHARE),
    accepted AS (
        SELECT o.*, row_number() OVER (ORDER BY o.place) - 1 AS slot
        FROM unnest($2::integer[], $3::text[], $4::bigint[], $5::bigint[], $6::integer[], $7::integer[], $8::jsonb[], $9::bigint[])
             WITH ORDINALITY AS o (relay, outcome, since, until, events, requests, detail, fence, place)
        JOIN held h ON h.name = 'synchronizer/' || o.relay AND h.token = o.fence),
    recorded AS (
        INSERT INTO sync_log (batch, slot, relay, outcome, since, until, events, requests, detail)
        SELECT $1, a.slot, a.relay, a.outcome, a.since, a.until, a.events, a.requests, a.detail FROM accepted a ORDER BY a.slot)
    SELECT a.place - 1 FROM accepted a";

const WINDOWS_BEFORE: &str = "-- windows_recorded_before
    SELECT s.relay, s.since, s.until FROM sync_log s
    WHERE s.xid = (SELECT f.xid FROM sync_log f WHERE f.batch = $1 AND f.slot = 0) AND s.batch = $1";

fn detail(command: &WindowCommand) -> Value {
    let mut detail = command.outcome.detail();
    detail["asked_at"] = command.asked_at.into();
    detail
}

impl Journal for SyncJournal {
    type Command = WindowCommand;
    type Answer = WindowAnswer;
    const NAME: &'static str = "sync_log";
    const QUEUE_MAX: usize = 2 * BATCH_MAX;

    fn batch_weight_max(&self) -> usize {
        BATCH_MAX
    }

    async fn append(
        &self,
        client: &mut Client,
        batch: Uuid,
        commands: &[WindowCommand],
    ) -> Result<Vec<WindowAnswer>, Error> {
        let relays: Vec<i32> = commands.iter().map(|c| c.relay.0).collect();
        let outcomes: Vec<&str> = commands.iter().map(|c| c.outcome.as_str()).collect();
        let since: Vec<i64> = commands.iter().map(|c| c.window.since).collect();
        let until: Vec<i64> = commands.iter().map(|c| c.window.until).collect();
        let events: Vec<i32> = commands.iter().map(|c| c.events).collect();
        let requests: Vec<i32> = commands.iter().map(|c| c.requests).collect();
        let details: Vec<Value> = commands.iter().map(detail).collect();
        let fences: Vec<i64> = commands.iter().map(|c| c.fence).collect();
        let rows = client
            .query_typed(
                WINDOWS,
                &[
                    (&batch, Type::UUID),
                    (&relays, Type::INT4_ARRAY),
                    (&outcomes, Type::TEXT_ARRAY),
                    (&since, Type::INT8_ARRAY),
                    (&until, Type::INT8_ARRAY),
                    (&events, Type::INT4_ARRAY),
                    (&requests, Type::INT4_ARRAY),
                    (&details, Type::JSONB_ARRAY),
                    (&fences, Type::INT8_ARRAY),
                ],
            )
            .await?;
        let mut answers = vec![WindowAnswer::LeaseLost; commands.len()];
        for row in rows {
            let place: i64 = row.get(0);
            if let Some(answer) = usize::try_from(place).ok().and_then(|place| answers.get_mut(place)) {
                *answer = WindowAnswer::Recorded;
            }
        }
        Ok(answers)
    }

    async fn lookup(
        &self,
        client: &Client,
        batch: Uuid,
        commands: &[WindowCommand],
    ) -> Result<Option<Vec<WindowAnswer>>, Error> {
        let rows = client.query_typed(WINDOWS_BEFORE, &[(&batch, Type::UUID)]).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let recorded: HashSet<(i32, i64, i64)> =
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        let answer = |c: &WindowCommand| {
            let is_recorded = recorded.contains(&(c.relay.0, c.window.since, c.window.until));
            if is_recorded { WindowAnswer::Recorded } else { WindowAnswer::LeaseLost }
        };
        Ok(Some(commands.iter().map(answer).collect()))
    }
}
