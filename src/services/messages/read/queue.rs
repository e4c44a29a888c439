//! Reads the messages that wait for a device, and the status of a message.
//!
//! Here and in the functions of the migrations, a subquery with LIMIT 1 tests whether an entry about a
//! message exists: PostgreSQL answers it from the index, message by message. It may turn `EXISTS` into a join
//! with the whole journal, and does so while the statistics are those of an empty table. The indexes hold
//! hashes of wayfarers, so each condition names the hash and the id; the id decides.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sqlx::PgPool;
use uuid::Uuid;

use crate::services::messages::event::{DeviceStatus, Generation, Message, MessageStatus, Page};
use crate::store::Error;

/// A request for one page of messages.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest<'request> {
    /// `wayfarer_id` of the recipient.
    pub recipient: &'request str,
    /// The recipient's device.
    pub device: &'request str,
    /// The page holds messages after this number.
    pub after: i64,
}

/// The size of a page.
#[derive(Debug, Clone, Copy)]
pub struct PageLimit {
    /// Most messages.
    pub messages: i64,
    /// Most bytes of their decoded payloads together: a page ends before the message that would exceed them.
    pub bytes: i64,
}

impl PageLimit {
    /// A page of at most `messages` messages and 4 MiB. The largest payload allowed, 1 MiB, fits, so every
    /// page makes progress.
    #[must_use]
    pub const fn messages(messages: i64) -> Self {
        Self { messages, bytes: 4 * 1024 * 1024 }
    }
}

/// A registered device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Every message up to this number is acknowledged by the device or expired.
    pub settled: i64,
    /// Whether the device was seen within the last day.
    pub is_recent: bool,
}

/// The record of a device; `None` when the device is not registered.
pub async fn device(pool: &PgPool, recipient: &str, device: &str) -> Result<Option<DeviceRecord>, Error> {
    Ok(sqlx::query_as!(
        DeviceRecord,
        r#"-- device
           SELECT position AS settled, seen_at > clock_timestamp() - interval '1 day' AS "is_recent!"
           FROM message_positions WHERE recipient = $1 AND device = $2"#,
        recipient,
        device
    )
    .fetch_optional(pool)
    .await?)
}

/// Reads one page for each request, in the order of the requests. One recipient's numbers become visible in
/// ascending order, so no message can appear later at or below `read_to`.
pub async fn pages(
    pool: &PgPool,
    requests: &[PageRequest<'_>],
    limit: PageLimit,
) -> Result<Vec<Page>, Error> {
    let recipients: Vec<String> = requests.iter().map(|request| request.recipient.to_owned()).collect();
    let devices: Vec<String> = requests.iter().map(|request| request.device.to_owned()).collect();
    let afters: Vec<i64> = requests.iter().map(|request| request.after).collect();
    let rows = sqlx::query!(
        r#"-- message_pages
           SELECT o.place AS "place!", t.top, l.position AS "position?", l.msg_id AS "msg_id?", l.sender AS "sender?",
                  extract(epoch FROM date_trunc('second', l.recorded_at))::bigint AS received_at,
                  extract(epoch FROM l.expires_at)::bigint AS expires_at, l.payload_bytes AS "payload_bytes?"
           FROM (SELECT u.*, hashtextextended(u.recipient, 0) AS hash
                 FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS u (recipient, device, after, place)) o
           CROSS JOIN LATERAL quipu_newest_message(o.recipient) AS t (top)
           LEFT JOIN LATERAL (SELECT m.* FROM message_log m
                 WHERE hashtextextended(m.recipient, 0) = o.hash AND m.recipient = o.recipient
                   AND m.position > o.after AND m.expires_at > clock_timestamp()
                   AND (SELECT a.position FROM message_log a
                        WHERE a.message = m.position AND a.device = o.device AND a.kind = 'acknowledged' LIMIT 1) IS NULL
                 ORDER BY m.position LIMIT $4) l ON true
           ORDER BY o.place, l.position"#,
        &recipients,
        &devices,
        &afters,
        limit.messages
    )
    .fetch_all(pool)
    .await?;
    let index_of = |index: i64| usize::try_from(index - 1).expect("ORDINALITY counts from 1");
    // Bytes left of each page after each row; negative from the first message that does not fit.
    let mut bytes_left = vec![limit.bytes; requests.len()];
    let fits: Vec<bool> = rows
        .iter()
        .map(|row| {
            let bytes_left = &mut bytes_left[index_of(row.place)];
            *bytes_left -= i64::from(row.payload_bytes.unwrap_or(0));
            *bytes_left >= 0
        })
        .collect();
    // A set, because two devices of one recipient may request the same message.
    let wanted: BTreeSet<(i64, i64)> = rows
        .iter()
        .zip(&fits)
        .filter_map(|(row, fits)| fits.then_some((row.position?, row.expires_at?)))
        .collect();
    let payloads = payloads(pool, &wanted).await?;

    let mut pages: Vec<Page> = requests
        .iter()
        .map(|request| Page { after: request.after, read_to: request.after, ..Page::default() })
        .collect();
    let recipient_names: Vec<Arc<str>> = requests.iter().map(|request| request.recipient.into()).collect();
    let mut counts = vec![0; requests.len()];
    let mut newest = afters;
    for (row, fits) in rows.into_iter().zip(fits) {
        let index = index_of(row.place);
        let (page, newest_of_page) = (&mut pages[index], &mut newest[index]);
        *newest_of_page = row.top.unwrap_or(0).max(*newest_of_page);
        // A request without messages still has a row, which holds the recipient's newest number.
        let Some(number) = row.position else { continue };
        counts[index] += 1;
        if !fits {
            page.has_more = true;
            continue;
        }
        page.has_more = counts[index] == limit.messages;
        page.read_to = number;
        // The payload is missing if its partition was dropped between the two queries.
        let (Some((generation, payload)), Some(msg_id), Some(sender)) =
            (payloads.get(&number), row.msg_id, row.sender)
        else {
            continue;
        };
        page.messages.push(Message {
            number,
            msg_id,
            sender,
            recipient: Arc::clone(&recipient_names[index]),
            received_at: row.received_at.unwrap_or(0),
            expires_at: row.expires_at.unwrap_or(0),
            generation: Generation::of_number(*generation),
            payload: payload.clone(),
        });
    }
    for (page, newest_of_page) in pages.iter_mut().zip(newest).filter(|(page, _)| !page.has_more) {
        page.read_to = newest_of_page;
    }
    Ok(pages)
}

/// Reads payloads by message number. The span of expiries lets the planner select the few partitions
/// concerned.
async fn payloads(
    pool: &PgPool,
    wanted: &BTreeSet<(i64, i64)>,
) -> Result<HashMap<i64, (i16, String)>, Error> {
    let (numbers, expiries): (Vec<i64>, Vec<i64>) = wanted.iter().copied().unzip();
    let (Some(first), Some(last)) = (expiries.iter().min().copied(), expiries.iter().max().copied()) else {
        return Ok(HashMap::new());
    };
    let rows = sqlx::query!(
        r#"-- message_payloads
           SELECT p.message, p.generation, p.payload
           FROM unnest($1::bigint[], $2::bigint[]) AS o (message, expires_s)
           CROSS JOIN LATERAL (SELECT p.message, p.generation, p.payload FROM message_payloads p
                               WHERE p.expires_at = to_timestamp(o.expires_s) AND p.message = o.message
                                 AND p.expires_at BETWEEN to_timestamp($3::bigint) AND to_timestamp($4::bigint) LIMIT 1) p"#,
        &numbers,
        &expiries,
        first,
        last
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.message, (row.generation, row.payload))).collect())
}

/// Returns the indexes of the recipients that have messages after the number given for each. Both lists have
/// the same length.
pub async fn recipients_with_more(
    pool: &PgPool,
    recipients: &[String],
    after: &[i64],
) -> Result<Vec<usize>, Error> {
    let places = sqlx::query_scalar!(
        r#"-- recipients_with_more
           SELECT o.place AS "place!" FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS o (recipient, after, place)
           WHERE (SELECT m.position FROM message_log m
                  WHERE hashtextextended(m.recipient, 0) = hashtextextended(o.recipient, 0) AND m.recipient = o.recipient
                    AND m.position > o.after LIMIT 1) IS NOT NULL"#,
        recipients,
        after
    )
    .fetch_all(pool)
    .await?;
    Ok(places.iter().filter_map(|place| usize::try_from(place - 1).ok()).collect())
}

/// Whether the sender has used this `client_msg_id`.
pub async fn client_msg_id_exists(pool: &PgPool, sender: &str, client_msg_id: &str) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"-- client_msg_id_exists
           SELECT EXISTS (SELECT FROM message_log WHERE sender = $1 AND client_msg_id = $2) AS "is_known!""#,
        sender,
        client_msg_id
    )
    .fetch_one(pool)
    .await?)
}

/// Reads the status of a message for its sender, with at most `devices_max` devices. `None` when the sender
/// sent no such message.
pub async fn message_status(
    pool: &PgPool,
    sender: &str,
    msg_id: Uuid,
    devices_max: usize,
) -> Result<Option<MessageStatus>, Error> {
    let Some(row) = sqlx::query!(
        r#"-- message_status
           SELECT position, extract(epoch FROM date_trunc('second', recorded_at))::bigint AS "accepted_at!",
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
    let devices_limit = i64::try_from(devices_max).unwrap_or(i64::MAX).saturating_add(1);
    let mut devices = sqlx::query_as!(
        DeviceStatus,
        r#"-- message_status_devices
           SELECT device AS "device!",
                  extract(epoch FROM min(coalesce(pushed_at, CASE kind WHEN 'pushed' THEN recorded_at END)))::bigint AS pushed_at,
                  extract(epoch FROM min(recorded_at) FILTER (WHERE kind = 'acknowledged'))::bigint AS acknowledged_at
           FROM message_log WHERE message = $1 GROUP BY device ORDER BY device LIMIT $2"#,
        row.position,
        devices_limit
    )
    .fetch_all(pool)
    .await?;
    let has_more_devices = devices.len() > devices_max;
    devices.truncate(devices_max);
    Ok(Some(MessageStatus {
        accepted_at: row.accepted_at,
        expires_at: row.expires_at,
        is_expired: row.is_expired,
        devices,
        has_more_devices,
    }))
}
