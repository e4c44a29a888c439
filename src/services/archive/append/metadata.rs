//! Appends snapshots to `relay_metadata` with the implementation's stored procedure.

use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::services::archive::command::SnapshotCommand;
use crate::store::Error;
use crate::store::append::{Client, Journal};

/// Largest weight of one transaction, in bytes of documents and results.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Weight of a snapshot without its document.
const SNAPSHOT_BYTES: usize = 2 * 1024;

/// The journal `relay_metadata`. Equal documents and equal results are stored once, shared by all relays.
#[derive(Debug)]
pub struct MetadataJournal;

const INSERT: &str = "-- insert_relay_metadata\nSELECT insert_relay_metadata_batch($1, $2, $3, $4, $5)";

const INSERTED_BEFORE: &str =
    "-- relay_metadata_inserted_before\nSELECT count(*) FROM relay_metadata WHERE batch = $1 AND slot = 0";

/// Approximate length of a value as JSON text, without serializing it.
fn bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(bytes).sum::<usize>() + 2,
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + 4 + bytes(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

impl Journal for MetadataJournal {
    type Command = SnapshotCommand;
    type Answer = ();
    const NAME: &'static str = "relay_metadata";
    const QUEUE_MAX: usize = 512;

    fn batch_weight_max(&self) -> usize {
        BATCH_BYTES_MAX
    }

    fn weight(command: &SnapshotCommand) -> usize {
        let document = command.snapshot.nip11.iter().flatten();
        SNAPSHOT_BYTES + document.map(|(name, value)| name.len() + bytes(value)).sum::<usize>()
    }

    fn subject(command: &SnapshotCommand) -> Option<&str> {
        Some(command.url.as_str())
    }

    async fn append(
        &self,
        client: &mut Client,
        batch: Uuid,
        commands: &[SnapshotCommand],
    ) -> Result<Vec<()>, Error> {
        let urls: Vec<&str> = commands.iter().map(|c| c.url.as_str()).collect();
        let generated: Vec<i64> = commands.iter().map(|c| c.snapshot.generated_at).collect();
        let nip11s: Vec<Option<Value>> =
            commands.iter().map(|c| c.snapshot.nip11.clone().map(Value::Object)).collect();
        let nip66s: Vec<Value> = commands.iter().map(|c| c.snapshot.nip66()).collect();
        client
            .query_typed(
                INSERT,
                &[
                    (&batch, Type::UUID),
                    (&urls, Type::TEXT_ARRAY),
                    (&generated, Type::INT8_ARRAY),
                    (&nip11s, Type::JSONB_ARRAY),
                    (&nip66s, Type::JSONB_ARRAY),
                ],
            )
            .await?;
        Ok(vec![(); commands.len()])
    }

    async fn lookup(
        &self,
        client: &Client,
        batch: Uuid,
        commands: &[SnapshotCommand],
    ) -> Result<Option<Vec<()>>, Error> {
        let rows = client.query_typed(INSERTED_BEFORE, &[(&batch, Type::UUID)]).await?;
        let recorded: i64 = rows.first().map_or(0, |row| row.get(0));
        Ok((recorded > 0).then(|| vec![(); commands.len()]))
    }
}
