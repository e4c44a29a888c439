//! Sizes on disk, messages that wait, and how far the projections are behind.

use maud::{Markup, html};

use super::super::read::{Lag, Pulse};
use super::format::{bytes, grouped, span};
use super::status::Status;
use crate::store::figures::{JournalSize, Messages, Sizes};

/// Journals that are listed, the largest ones.
const JOURNALS_MAX: usize = 8;

/// Batches at which counting stops.
const BATCHES_MAX: i64 = 1_000;

/// The sizes, the messages and the projections.
pub(super) fn panel(status: &Status) -> Markup {
    html! {
        section #panel-storage {
            div.pair {
                @if let Some(sizes) = &status.figures.sizes { (storage(sizes, status.figures.spare_bytes)) }
                section {
                    @if let Some(messages) = &status.figures.messages { (waiting(messages)) }
                    @if let Some(archive) = &status.archive { (projections(&archive.totals.pulse)) }
                }
            }
        }
    }
}

fn storage(sizes: &Sizes, spare_bytes: Option<i64>) -> Markup {
    let mut journals: Vec<&JournalSize> = sizes.journals.iter().collect();
    journals.sort_by_key(|journal| -journal.bytes);
    let (shown, rest) = journals.split_at(journals.len().min(JOURNALS_MAX));
    #[expect(clippy::cast_possible_truncation, reason = "bytes, for people; saturates")]
    let growth = sizes.daily_growth_bytes.map(|bytes_a_day| bytes_a_day.round() as i64);
    html! {
        section {
            h2 { "On disk" small { "rows are estimates" } }
            table { thead { tr { th { "journal" } th.number { "rows" } th.number { "size" } } }
                tbody {
                    @for journal in shown {
                        tr { td { span.name { (journal.journal) } } td.number { (grouped(journal.rows)) } td.number { (bytes(journal.bytes)) } }
                    }
                    @if !rest.is_empty() {
                        tr { td { span.name { (rest.len()) " more" } } td.number { (grouped(rest.iter().map(|journal| journal.rows).sum())) }
                             td.number { (bytes(rest.iter().map(|journal| journal.bytes).sum())) } }
                    }
                    tr.sum { td { "database" } td.number {} td.number { (bytes(sizes.database_bytes)) } }
                    @if let Some(growth) = growth { tr { td { "a day adds" } td.number {} td.number { (bytes(growth)) } } }
                    @if let Some(spare) = spare_bytes { tr { td { "free above the reserve" } td.number {} td.number { (bytes(spare)) } } }
                } }
        }
    }
}

fn waiting(messages: &Messages) -> Markup {
    html! {
        h2 { "Messages" }
        @if messages.stored == 0 && messages.pending == 0 { p.empty { "None is stored." } }
        @else {
            table { thead.quiet { tr { th { "what" } th.number { "value" } } }
                tbody {
                    tr { td { "stored, about" } td.number { (grouped(messages.stored)) } }
                    tr { td { "not acknowledged" } td.number { (grouped(messages.pending)) } }
                    @if let Some(age_s) = messages.oldest_s { tr { td { "oldest of them" } td.number { (span(age_s)) } } }
                    @if let Some(left_s) = messages.next_loss_s { tr { td { "next one expires in" } td.number { (span(left_s)) } } }
                } }
        }
    }
}

fn projections(pulse: &Pulse) -> Markup {
    html! {
        h2 { "Projections" }
        @match pulse.newest_tick {
            None => p.lag { span.mark.wait {} "No tick yet: numbers appear after the first write." },
            Some(tick) => {
                @for lag in &pulse.lags { (lag_of(lag, tick)) }
                @if pulse.lags.is_empty() {
                    p.lag { span.mark.wait {} "The totals are being built; numbers grow until they have caught up." }
                }
            }
        }
    }
}

fn lag_of(lag: &Lag, tick: i64) -> Markup {
    let Lag { projection, batches, seconds } = lag;
    html! {
        p.lag {
            @if *batches == 0 { span.mark.ok {} (projection) ": up to date with tick " (grouped(tick)) "." }
            @else {
                span.mark.wait {} (projection) ": " @if *batches >= BATCHES_MAX { "more than " } (grouped(*batches))
                @if *batches == 1 { " batch and " } @else { " batches and " } (span(*seconds)) " behind tick " (grouped(tick)) "."
            }
        }
    }
}
