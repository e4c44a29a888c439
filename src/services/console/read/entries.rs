//! Reads journal entries in the order of ticks.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;

use super::super::{DETAIL_BYTES_MAX, ENTRIES_A_READ, ENTRIES_SHOWN, TICKS_A_READ};
use crate::store::Error;
use crate::store::figures::bounded;

/// Position of a reader: all entries of earlier ticks, and of this tick the entries up to `position`. As text
/// `tick-position`, which is the event id of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Cursor {
    /// `tick.number`.
    pub(in super::super) tick: i64,
    /// Position of the last entry seen; [`i64::MAX`] when all of the tick was.
    pub(in super::super) position: i64,
}

impl Cursor {
    /// The position after all entries of `tick`.
    pub(in super::super) fn end_of(tick: i64) -> Self {
        Self { tick, position: i64::MAX }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.tick, self.position)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |digits: &str| {
            let is_plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if is_plain { digits.parse().map_err(drop) } else { Err(()) }
        };
        let (tick, position) = text.split_once('-').ok_or(())?;
        Ok(Self { tick: number(tick)?, position: number(position)? })
    }
}

/// One journal entry, as sent to pages and streams.
#[derive(Debug, Clone, Serialize)]
pub(in super::super) struct Entry {
    /// Position in the order of all journals.
    pub(in super::super) position: i64,
    /// Time by the database's clock.
    pub(in super::super) recorded_at: DateTime<Utc>,
    /// The room that wrote it.
    pub(in super::super) room: String,
    /// The kind of entry.
    pub(in super::super) kind: String,
    /// The subject, such as a relay's URL.
    pub(in super::super) subject: String,
    /// Further fields; only `detail_bytes` if they are large.
    pub(in super::super) detail: Value,
}

/// The entries after a cursor.
#[derive(Debug)]
pub(in super::super) enum Page {
    /// Entries with their cursors in order, and the cursor after the last one. With `more`, another page can
    /// be read at once.
    Entries { entries: Vec<(Cursor, Entry)>, reached: Cursor, more: bool },
    /// The cursor's tick, or the tick before it, is no longer kept.
    TickMissing,
}

/// The number of the newest tick.
pub(in super::super) async fn newest_tick(pool: &PgPool) -> Result<Option<i64>, Error> {
    let mut moment = bounded(pool).await?;
    let newest =
        sqlx::query_scalar!("-- newest_tick\nSELECT max(number) FROM tick").fetch_one(&mut *moment).await?;
    moment.commit().await?;
    Ok(newest)
}

/// Reads the entries after `after`: the rest of its tick, then for each following tick the entries that its
/// snapshot sees and the previous tick's does not. One statement, so that no tick can be deleted in between.
pub(in super::super) async fn entries_after(pool: &PgPool, after: Cursor) -> Result<Page, Error> {
    let mut moment = bounded(pool).await?;
    let rows = sqlx::query!(
        r#"-- entries_after
           WITH span AS MATERIALIZED (
               SELECT number, snapshot, lag(snapshot) OVER (ORDER BY number) AS last
               FROM (SELECT number, snapshot FROM tick
                     WHERE number >= coalesce((SELECT max(number) FROM tick WHERE number < $1), $1)
                     ORDER BY number LIMIT $3::bigint + 2) t)
           SELECT s.number, s.last IS NOT NULL AS "has_last!", j.position AS "position?", j.recorded_at AS "recorded_at?",
                  j.room AS "room?", j.kind AS "kind?", j.subject AS "subject?",
                  CASE WHEN octet_length(j.detail::text) <= $5 THEN j.detail
                       ELSE jsonb_build_object('detail_bytes', octet_length(j.detail::text)) END AS "detail?"
           FROM span s
           LEFT JOIN LATERAL (SELECT * FROM journal_between(s.last, s.snapshot) b WHERE s.number > $1 OR b.position > $2) j ON true
           WHERE s.number >= $1
           ORDER BY s.number, j.position LIMIT $4::bigint"#,
        after.tick,
        after.position,
        TICKS_A_READ,
        ENTRIES_A_READ,
        DETAIL_BYTES_MAX
    )
    .fetch_all(&mut *moment)
    .await?;
    moment.commit().await?;
    let whole_tick_seen = after.position == i64::MAX;
    if !rows.first().is_some_and(|row| row.number == after.tick && (row.has_last || whole_tick_seen)) {
        return Ok(Page::TickMissing);
    }
    let cut = i64::try_from(rows.len()).is_ok_and(|rows| rows >= ENTRIES_A_READ);
    let (mut entries, mut reached, mut ticks) = (Vec::with_capacity(rows.len()), after, 1);
    for row in rows {
        if row.number != reached.tick {
            ticks += 1;
        }
        reached = Cursor::end_of(row.number);
        if let (Some(position), Some(recorded_at)) = (row.position, row.recorded_at) {
            reached.position = position;
            let entry = Entry {
                position,
                recorded_at,
                room: row.room.unwrap_or_default(),
                kind: row.kind.unwrap_or_default(),
                subject: row.subject.unwrap_or_default(),
                detail: row.detail.unwrap_or_default(),
            };
            entries.push((reached, entry));
        }
    }
    if !cut {
        reached = Cursor::end_of(reached.tick);
    }
    Ok(Page::Entries { entries, reached, more: cut || ticks > TICKS_A_READ })
}

/// The newest entries that a tick has seen, newest first, with the cursor for a stream that continues from
/// them.
#[derive(Debug, Default)]
pub(in super::super) struct Latest {
    /// Cursor for the stream; `None` while there is no tick.
    pub(in super::super) cursor: Option<Cursor>,
    /// At most [`ENTRIES_SHOWN`].
    pub(in super::super) entries: Vec<Entry>,
}

/// Reads the newest entries. Positions only bound the search; the tick's snapshot decides which entries are
/// visible. Entries that commit later belong to a later tick.
pub(in super::super) async fn latest(pool: &PgPool) -> Result<Latest, Error> {
    let mut moment = bounded(pool).await?;
    let tick = sqlx::query!(
        "-- latest_tick\nSELECT number, snapshot::text AS \"snapshot!\", last_position FROM tick ORDER BY number DESC LIMIT 1"
    )
    .fetch_optional(&mut *moment)
    .await?;
    let Some(tick) = tick else { return Ok(Latest::default()) };
    let mut width = ENTRIES_SHOWN * 8;
    loop {
        let from = tick.last_position.saturating_sub(width);
        let entries = sqlx::query_as!(
            Entry,
            r#"-- latest_entries
               SELECT position AS "position!", recorded_at AS "recorded_at!", room AS "room!", kind AS "kind!",
                      coalesce(subject, '') AS "subject!",
                      CASE WHEN octet_length(detail::text) <= $4 THEN detail
                           ELSE jsonb_build_object('detail_bytes', octet_length(detail::text)) END AS "detail!"
               FROM journal
               WHERE position > $1
                 AND (position <= (SELECT max(floor) FROM era) OR pg_visible_in_snapshot(xid, $2::text::pg_snapshot))
               ORDER BY position DESC LIMIT $3"#,
            from,
            tick.snapshot,
            ENTRIES_SHOWN,
            DETAIL_BYTES_MAX
        )
        .fetch_all(&mut *moment)
        .await?;
        if from <= 0 || i64::try_from(entries.len()).is_ok_and(|found| found >= ENTRIES_SHOWN) {
            moment.commit().await?;
            return Ok(Latest { cursor: Some(Cursor::end_of(tick.number)), entries });
        }
        width = width.saturating_mul(64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_reads_back_as_it_was_written() {
        for cursor in [Cursor { tick: 7, position: 0 }, Cursor::end_of(i64::MAX)] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }

    #[test]
    fn nonsense_is_no_event_id() {
        let nonsense = [
            "",
            "-",
            "7",
            "7-",
            "-7",
            "7--1",
            "+7-1",
            "7-1-1",
            "7 -1",
            "7-9223372036854775808",
            "٧-1",
            "a-b",
        ];
        for text in nonsense {
            assert_eq!(text.parse::<Cursor>(), Err(()), "{text}");
        }
    }
}
