//! Generates the sequence of sample events from a seed.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use nostr_sdk::{Event, EventId, JsonUtil};
use rayon::prelude::*;

use super::bodies::Source;
use super::dice::Dice;
use super::draft::{Author, Draft};

/// Seconds between two events of [`SampleGenerator::paced`]: a million events span about three months.
const PACE_S: u64 = 8;
/// First second of [`SampleGenerator::paced`]: 2024-01-01 00:00:00 UTC.
const PACED_FROM_S: u64 = 1_704_067_200;
/// Authors of [`SampleGenerator::paced`].
const PACED_AUTHORS: usize = 1_000;
/// Recent notes that other events can refer to. With `IDS_MAX` this bounds the memory of a generator.
const NOTES_MAX: usize = 1_024;
/// Recent ids that a new event must differ from. An event that refers to a note is younger than the note, so
/// two equal ones are never further apart than notes are kept.
const IDS_MAX: usize = 8_192;
/// Kinds that are unique by their content alone; only these are backdated.
const BACKDATED_KINDS: [u16; 4] = [1, 4, 1_059, 30_023];
/// Largest backdating, in seconds: 400 days.
const BACKDATED_S_MAX: u64 = 400 * 86_400;
/// Largest disorder of other events, in seconds.
const JITTER_S_MAX: u64 = 90;
/// Events signed in parallel at a time: about 2 MB of text.
const CHUNK: usize = 2_048;

/// Generates signed Nostr events. The same arguments give the same bytes, including signatures.
///
/// Events are roughly ordered by time: `created_at` advances evenly through the span, at most 90 seconds or
/// 16 events out of order, except for about 3 % of events that are backdated. No two events are equal. All
/// times are within the span. Memory does not grow with the number of events. NUL never occurs; every other
/// hard case of JSON does.
#[derive(Debug)]
pub struct SampleGenerator {
    dice: Dice,
    authors: Arc<[Author]>,
    span: Range<u64>,
    count: u64,
    made: u64,
    notes: VecDeque<Draft>,
    ids: VecDeque<EventId>,
    known: HashSet<EventId>,
}

impl SampleGenerator {
    /// `count` events by `authors` authors (at least one), evenly distributed over `span`, in Unix seconds.
    #[must_use]
    pub fn new(seed: u64, authors: usize, span: Range<u64>, count: u64) -> Self {
        let authors = (0..authors.max(1)).into_par_iter().map(|index| Author::new(seed, index));
        let authors = authors.collect::<Vec<_>>().into();
        Self {
            dice: Dice::new(seed),
            authors,
            span,
            count,
            made: 0,
            notes: VecDeque::new(),
            ids: VecDeque::new(),
            known: HashSet::new(),
        }
    }

    /// `count` events at a fixed rate, so that a longer sample starts with all events of a shorter one.
    #[must_use]
    pub fn paced(seed: u64, count: u64) -> Self {
        let end = PACED_FROM_S.saturating_add(count.saturating_mul(PACE_S));
        Self::new(seed, PACED_AUTHORS, PACED_FROM_S..end, count)
    }

    /// Passes all remaining events to `sink` in order, as JSON lines, one chunk at a time with its number of
    /// events. Signing uses all cores; the bytes equal those of the iterator.
    ///
    /// # Errors
    ///
    /// The first error of `sink`, which stops the generation.
    pub fn json_lines(mut self, mut sink: impl FnMut(&[u8], u64) -> io::Result<()>) -> io::Result<()> {
        let mut chunk = self.drafts();
        while !chunk.is_empty() {
            let authors = Arc::clone(&self.authors);
            let sign = |draft: Draft| draft.sign(&authors).as_json();
            let (lines, next) =
                rayon::join(|| chunk.into_par_iter().map(sign).collect::<Vec<_>>(), || self.drafts());
            let mut text = lines.join("\n");
            text.push('\n');
            sink(text.as_bytes(), as_count(lines.len()))?;
            chunk = next;
        }
        Ok(())
    }

    fn drafts(&mut self) -> Vec<Draft> {
        std::iter::from_fn(|| self.draft()).take(CHUNK).collect()
    }

    fn draft(&mut self) -> Option<Draft> {
        if self.made == self.count {
            return None;
        }
        let draft = loop {
            let draft = self.candidate();
            if self.known.insert(draft.id) {
                break draft;
            }
        };
        self.made += 1;
        self.ids.push_back(draft.id);
        if self.ids.len() > IDS_MAX
            && let Some(oldest) = self.ids.pop_front()
        {
            self.known.remove(&oldest);
        }
        if [1, 1_111, 30_023].contains(&draft.kind.as_u16()) {
            if self.notes.len() == NOTES_MAX {
                self.notes.pop_front();
            }
            self.notes.push_back(draft.clone());
        }
        Some(draft)
    }

    fn candidate(&mut self) -> Draft {
        let length = self.span.end.saturating_sub(self.span.start);
        let through = u128::from(length) * u128::from(self.made) / u128::from(self.count);
        let through = u64::try_from(through).expect("not more than the span's length");
        let jitter = (length / self.count).saturating_mul(16).min(JITTER_S_MAX);
        let jitter = self.dice.below(jitter.min(through) + 1);
        // Spread over the past, not clamped to the start: a second with more events than a relay returns at
        // once could not be paged through.
        let back = self.dice.below(BACKDATED_S_MAX.min(through) + 1);
        let created_at = self.span.start + through - jitter;
        let source = Source { dice: &mut self.dice, authors: &self.authors, notes: &self.notes, created_at };
        let body = source.body();
        // These kinds are half of all events, so 6 % of them are 3 % of all.
        let backdated = BACKDATED_KINDS.contains(&body.kind) && self.dice.percent(6);
        let created_at = if backdated { self.span.start + through - back } else { created_at };
        Draft::new(body, created_at, &self.authors)
    }
}

impl Iterator for SampleGenerator {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.draft().map(|draft| draft.sign(&self.authors))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.count - self.made).ok();
        (left.unwrap_or(usize::MAX), left)
    }
}

fn as_count(length: usize) -> u64 {
    u64::try_from(length).expect("lengths fit 64 bits")
}
