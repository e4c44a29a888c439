//! What waits for a device, and what became of a message.
//!
//! Whether there is an entry about a message is asked by a subquery with LIMIT, here and in the functions of the migrations: such a one is
//! answered from the index, message by message. `EXISTS` may become a join with the whole journal, and does while the statistics
//! are those of an empty table. Wayfarers are found by their hash, which is what the indexes hold; the name decides.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sqlx::PgPool;
use uuid::Uuid;

use crate::services::messages::event::{DeviceStatus, Generation, Message, MessageStatus, Page};
use crate::store::Error;

/// Whose messages are asked for.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest<'request> {
    /// `wayfarer_id`.
    pub recipient: &'request str,
    /// His device.
    pub device: &'request str,
    /// After which number.
    pub after: i64,
}

/// How much of each.
#[derive(Debug, Clone, Copy)]
pub struct PageLimit {
    /// Messages.
    pub messages: i64,
    /// Bytes of their decoded payloads together: a page ends before the message that would pass it.
    pub bytes: i64,
}

impl PageLimit {
    /// So many messages, as long as they fit into memory. The largest payload does by itself, so that every page goes on.
    #[must_use]
    pub const fn messages(messages: i64) -> Self {
        Self { messages, bytes: 4 * 1024 * 1024 }
    }
}

/// A device that its wayfarer has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Up to which number it has settled everything.
    pub settled: i64,
    /// Whether it was seen within a day.
    pub is_recent: bool,
}

/// What is known of a device; `None` when its wayfarer has not shown it.
pub async fn device(pool: &PgPool, recipient: &str, device: &str) -> Result<Option<DeviceRecord>, Error> {
    Ok(sqlx::query_as!(
        DeviceRecord,
        r#"SELECT position AS settled, seen_at > clock_timestamp() - interval '1 day' AS "is_recent!"
           FROM message_positions WHERE recipient = $1 AND device = $2"#,
        recipient,
        device
    )
    .fetch_optional(pool)
    .await?)
}

/// A page for each, in their order. A recipient's numbers become visible in their order, so nothing below the last one can appear
/// later.
pub async fn pages(
    pool: &PgPool,
    requests: &[PageRequest<'_>],
    limit: PageLimit,
) -> Result<Vec<Page>, Error> {
    let recipients: Vec<String> = requests.iter().map(|request| request.recipient.to_owned()).collect();
    let devices: Vec<String> = requests.iter().map(|request| request.device.to_owned()).collect();
    let afters: Vec<i64> = requests.iter().map(|request| request.after).collect();
    let rows = sqlx::query!(
        r#"SELECT o.place AS "place!", t.top, l.position AS "position?", l.msg_id AS "msg_id?", l.sender AS "sender?",
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
    let place_of = |place: i64| usize::try_from(place - 1).expect("places are counted from 1");
    // What is left of each page after a row, negative from the first that does not fit.
    let mut bytes_left = vec![limit.bytes; requests.len()];
    let fits: Vec<bool> = rows
        .iter()
        .map(|row| {
            let bytes_left = &mut bytes_left[place_of(row.place)];
            *bytes_left -= i64::from(row.payload_bytes.unwrap_or(0));
            *bytes_left >= 0
        })
        .collect();
    // Two devices may ask for one message.
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
    let recipients_by_place: Vec<Arc<str>> =
        requests.iter().map(|request| request.recipient.into()).collect();
    let mut counts = vec![0; requests.len()];
    let mut newest = afters;
    for (row, fits) in rows.into_iter().zip(fits) {
        let place = place_of(row.place);
        let (page, newest_of_page) = (&mut pages[place], &mut newest[place]);
        *newest_of_page = row.top.unwrap_or(0).max(*newest_of_page);
        // Where nothing was found there is a row all the same: for the top.
        let Some(number) = row.position else { continue };
        counts[place] += 1;
        if !fits {
            page.has_more = true;
            continue;
        }
        page.has_more = counts[place] == limit.messages;
        page.read_to = number;
        // Not there when its hour was dropped between the two looks.
        let (Some((generation, payload)), Some(msg_id), Some(sender)) =
            (payloads.get(&number), row.msg_id, row.sender)
        else {
            continue;
        };
        page.messages.push(Message {
            number,
            msg_id,
            sender,
            recipient: Arc::clone(&recipients_by_place[place]),
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

/// What messages say, by number. Asked with the span of their ends, so that the plan knows the few hours it is about.
async fn payloads(
    pool: &PgPool,
    wanted: &BTreeSet<(i64, i64)>,
) -> Result<HashMap<i64, (i16, String)>, Error> {
    let (numbers, expiries): (Vec<i64>, Vec<i64>) = wanted.iter().copied().unzip();
    let (Some(first), Some(last)) = (expiries.iter().min().copied(), expiries.iter().max().copied()) else {
        return Ok(HashMap::new());
    };
    let rows = sqlx::query!(
        r#"SELECT p.message, p.generation, p.payload
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

/// Which of these recipients have messages after the number given with each; as places in the lists, which are equally long.
pub async fn recipients_with_more(
    pool: &PgPool,
    recipients: &[String],
    after: &[i64],
) -> Result<Vec<usize>, Error> {
    let places = sqlx::query_scalar!(
        r#"SELECT o.place AS "place!" FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS o (recipient, after, place)
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

/// Whether a sender has used a `client_msg_id`.
pub async fn client_msg_id_exists(pool: &PgPool, sender: &str, client_msg_id: &str) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM message_log WHERE sender = $1 AND client_msg_id = $2) AS "is_known!""#,
        sender,
        client_msg_id
    )
    .fetch_one(pool)
    .await?)
}

/// The life of a message, for its sender alone, with at most `devices_max` devices. `None` when the sender sent no such message.
pub async fn message_status(
    pool: &PgPool,
    sender: &str,
    msg_id: Uuid,
    devices_max: usize,
) -> Result<Option<MessageStatus>, Error> {
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
    let devices_limit = i64::try_from(devices_max).unwrap_or(i64::MAX).saturating_add(1);
    let mut devices = sqlx::query_as!(
        DeviceStatus,
        r#"SELECT device AS "device!",
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
