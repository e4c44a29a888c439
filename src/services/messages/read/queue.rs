//! What waits for a device, and what became of a message.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::PgPool;
use uuid::Uuid;

use crate::services::messages::event::{DeviceLife, Generation, Life, Message};
use crate::store::Error;

/// Messages of a recipient, in the order of their numbers.
#[derive(Debug)]
pub struct Page {
    /// Those that the device has not acknowledged and that are not over.
    pub messages: Vec<Message>,
    /// Up to which number this answers: nothing below it waits for the device beyond what is here.
    pub read_to: i64,
    /// Whether there may be more after it.
    pub has_more: bool,
}

/// Up to which number a device has settled everything.
pub async fn settled(pool: &PgPool, recipient: &str, device: &str) -> Result<i64, Error> {
    let position = sqlx::query_scalar!(
        "SELECT position FROM message_positions WHERE recipient = $1 AND device = $2",
        recipient,
        device
    )
    .fetch_optional(pool)
    .await?;
    Ok(position.unwrap_or(0))
}

/// At most `most` messages for a device, after number `after`. A recipient's numbers become visible in their order, so nothing
/// below the last one can appear later.
pub async fn page(
    pool: &PgPool,
    recipient: &str,
    device: &str,
    after: i64,
    most: i64,
) -> Result<Page, Error> {
    let rows = sqlx::query!(
        r#"SELECT t.top, l.position AS "position?", l.msg_id AS "msg_id?", l.sender AS "sender?",
                  extract(epoch FROM date_trunc('second', l.recorded_at))::bigint AS received_at,
                  extract(epoch FROM l.expires_at)::bigint AS expires_at, p.generation AS "generation?", p.payload AS "payload?"
           FROM (SELECT max(position) AS top FROM message_log WHERE recipient = $1) t
           LEFT JOIN (SELECT m.* FROM message_log m
                 WHERE m.recipient = $1 AND m.position > $3 AND m.expires_at > clock_timestamp()
                   AND NOT EXISTS (SELECT FROM message_log a
                                   WHERE a.message = m.position AND a.device = $2 AND a.kind = 'acknowledged')
                 ORDER BY m.position LIMIT $4) l ON true
           LEFT JOIN LATERAL (SELECT p.generation, p.payload FROM message_payloads p
                              WHERE p.expires_at = l.expires_at AND p.message = l.position) p ON true
           ORDER BY l.position"#,
        recipient,
        device,
        after,
        most
    )
    .fetch_all(pool)
    .await?;
    // Where nothing was found there is a row all the same: for the top.
    let has_more = i64::try_from(rows.iter().filter(|row| row.position.is_some()).count()) == Ok(most);
    let last = rows.last().and_then(|row| if has_more { row.position } else { row.top });
    let read_to = last.unwrap_or(0).max(after);
    let name: Arc<str> = recipient.into();
    let messages = rows
        .into_iter()
        .filter_map(|row| {
            Some(Message {
                number: row.position?,
                msg_id: row.msg_id?,
                sender: row.sender?,
                recipient: Arc::clone(&name),
                received_at: row.received_at?,
                expires_at: row.expires_at?,
                // Not there when its hour was dropped between the two looks.
                generation: Generation::of_number(row.generation?),
                payload: row.payload?,
            })
        })
        .collect();
    Ok(Page { messages, read_to, has_more })
}

/// Which of these recipients have messages after the number given with each; as places in the lists, which are equally long.
pub async fn with_more(pool: &PgPool, recipients: &[String], after: &[i64]) -> Result<Vec<usize>, Error> {
    let places = sqlx::query_scalar!(
        r#"SELECT o.place AS "place!" FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS o (recipient, after, place)
           WHERE EXISTS (SELECT FROM message_log m WHERE m.recipient = o.recipient AND m.position > o.after)"#,
        recipients,
        after
    )
    .fetch_all(pool)
    .await?;
    Ok(places.iter().filter_map(|place| usize::try_from(place - 1).ok()).collect())
}

/// Whether a sender has used a `client_msg_id`.
pub async fn is_known(pool: &PgPool, sender: &str, client_msg_id: &str) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM message_log WHERE sender = $1 AND client_msg_id = $2) AS "is_known!""#,
        sender,
        client_msg_id
    )
    .fetch_one(pool)
    .await?)
}

/// The life of a message, for its sender alone. `None` when he sent no such message.
pub async fn life(pool: &PgPool, sender: &str, msg_id: Uuid) -> Result<Option<Life>, Error> {
    let Some(row) = sqlx::query!(
        r#"SELECT position, extract(epoch FROM date_trunc('second', recorded_at))::bigint AS "accepted_at!",
                  extract(epoch FROM expires_at)::bigint AS "expires_at!", expires_at <= clock_timestamp() AS "is_expired!"
           FROM message_log WHERE msg_id = $1 AND sender = $2"#,
        msg_id,
        sender
    )
    .fetch_optional(pool)
    .await?
    else {
        return Ok(None);
    };
    let facts = sqlx::query!(
        r#"SELECT device AS "device!", kind, extract(epoch FROM recorded_at)::bigint AS "at!"
           FROM message_log WHERE message = $1 ORDER BY position"#,
        row.position
    )
    .fetch_all(pool)
    .await?;
    let mut devices: BTreeMap<String, DeviceLife> = BTreeMap::new();
    for fact in facts {
        let device = fact.device;
        let life = devices.entry(device.clone()).or_insert(DeviceLife {
            device,
            pushed_at: None,
            acknowledged_at: None,
        });
        if fact.kind == "acknowledged" {
            life.acknowledged_at = Some(fact.at);
        } else {
            life.pushed_at = Some(fact.at);
        }
    }
    Ok(Some(Life {
        accepted_at: row.accepted_at,
        expires_at: row.expires_at,
        is_expired: row.is_expired,
        devices: devices.into_values().collect(),
    }))
}
