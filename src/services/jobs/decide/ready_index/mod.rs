//! Which jobs to claim next: a bounded part of the ready jobs of each type, read ahead, and the place from
//! which the database is searched for more.
//!
//! Jobs of one type and priority are claimed in the order in which they became ready. Over all priorities the
//! order is by score: the time at which a job became ready, plus an allowance for each level. A job of
//! priority 5 is therefore claimed before one of priority 1 that became ready later by more than four times
//! the allowance: no job waits for ever.
//!
//! The index decides nothing. A candidate that was claimed elsewhere is tried in vain, because its next step
//! exists. What the index must not do is overlook a job for good: [`ReadyIndex::notice`] moves the search back
//! whenever an entry becomes visible.

use std::collections::{HashMap, VecDeque};

use super::limits::PRIORITIES;

/// Most types that had jobs, and most types beside those of one batch that never had any. Of each kind those are
/// forgotten that were asked for longest ago: types that a client makes up cost the others nothing.
const TYPES_MAX: usize = 1_000;

/// Time after which a level without news is searched again, because time passes for jobs that were not ready
/// yet, milliseconds.
const SEARCH_AGAIN_MS: u64 = 250;

/// A job that could be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Type.
    pub job_type: String,
    /// Number of the job.
    pub job: i64,
    /// The step after which it can be claimed.
    pub step: i32,
    /// Status after that step: pending or failed.
    pub is_failed: bool,
    /// 1 to 5.
    pub priority: i16,
    /// When it became ready, microseconds since 1970.
    pub ready_us: i64,
    /// Leases so far.
    pub attempt: i32,
    /// Attempts that count against `attempts_max`.
    pub failures: i32,
}

/// A search that is to be made: of each type, from where in each level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Type.
    pub job_type: String,
    /// One place per priority, microseconds since 1970.
    pub starts: [i64; PRIORITIES],
}

impl Search {
    /// From where jobs of this priority are searched.
    #[must_use]
    pub fn start_of(&self, priority: i16) -> Option<i64> {
        place_of(priority).map(|place| self.starts[place])
    }
}

/// The ready jobs of one type and priority.
#[derive(Debug, Clone)]
struct Level {
    /// Candidates that were read ahead, in order.
    ahead: VecDeque<Candidate>,
    /// Everything that became ready before is done or in `ahead`; microseconds since 1970.
    next_us: i64,
    /// Whether the database may have more from `next_us` on that is ready already.
    may_have_more: bool,
    /// When it was searched last, milliseconds of the caller's clock.
    searched_ms: Option<u64>,
    /// The earliest entry that became visible since the search in progress began.
    noticed_us: Option<i64>,
}

impl Default for Level {
    fn default() -> Self {
        Self { ahead: VecDeque::new(), next_us: 0, may_have_more: true, searched_ms: None, noticed_us: None }
    }
}

impl Level {
    fn is_due(&self, wanted: usize, now_ms: u64) -> bool {
        let is_old = self.searched_ms.is_none_or(|at| now_ms.saturating_sub(at) >= SEARCH_AGAIN_MS);
        self.ahead.len() < wanted && (self.may_have_more || is_old)
    }

    /// Goes back to `us`: what was read ahead from there on is read again.
    fn go_back(&mut self, us: i64) {
        while self.ahead.pop_back_if(|last| last.ready_us >= us).is_some() {}
        self.search_from(us);
    }

    /// The next search begins at `us` at the latest.
    fn search_from(&mut self, us: i64) {
        self.next_us = self.next_us.min(us);
        self.may_have_more = true;
    }

    /// Adds a candidate in its place. It may be known: a search goes back behind what was read ahead, and two
    /// segments may hold one entry.
    fn add(&mut self, candidate: Candidate) {
        let later = self.ahead.iter().rev().take_while(|known| known.ready_us > candidate.ready_us).count();
        let place = self.ahead.len() - later;
        let is_known = self
            .ahead
            .range(..place)
            .rev()
            .take_while(|known| known.ready_us == candidate.ready_us)
            .any(|known| known.job == candidate.job && known.step == candidate.step);
        if !is_known {
            self.ahead.insert(place, candidate);
        }
    }
}

/// What is known of one type.
#[derive(Debug, Clone, Default)]
struct Known {
    levels: [Level; PRIORITIES],
    /// Whether a job of this type was found or noticed.
    has_had_jobs: bool,
    /// The batch that asked for it last.
    batch: u64,
}

/// The index of one process.
#[derive(Debug, Clone)]
pub struct ReadyIndex {
    types: HashMap<String, Known>,
    /// The number of this batch.
    batch: u64,
    /// Allowance for each level of priority, microseconds.
    bonus_us: i64,
}

impl ReadyIndex {
    /// An empty index. `bonus_us` is the time by which a job may have become ready later and still be claimed
    /// before one of the next lower priority.
    #[must_use]
    pub fn new(bonus_us: i64) -> Self {
        Self { types: HashMap::new(), batch: 0, bonus_us }
    }

    /// The searches that have to be made before `wanted` jobs can be taken from each of these types. Call
    /// [`ReadyIndex::found`] with their results; only one may be in progress.
    pub fn searches<'a>(
        &mut self,
        wanted: impl IntoIterator<Item = (&'a str, usize)>,
        now_ms: u64,
    ) -> Vec<Search> {
        let mut searches = Vec::new();
        let wanted: Vec<(&str, usize)> = wanted.into_iter().collect();
        self.make_room(&wanted);
        for (job_type, wanted) in wanted {
            let known = self.types.entry(job_type.to_owned()).or_default();
            known.batch = self.batch;
            let levels = &mut known.levels;
            if !levels.iter().any(|level| level.is_due(wanted, now_ms)) {
                continue;
            }
            for level in levels.iter_mut() {
                level.noticed_us = None;
            }
            let starts = levels.each_ref().map(|level| level.next_us);
            searches.push(Search { job_type: job_type.to_owned(), starts });
        }
        searches
    }

    /// Forgets types, but none of those that are wanted now, until the others fit.
    fn make_room(&mut self, wanted: &[(&str, usize)]) {
        self.batch += 1;
        let mut new = 0;
        for (job_type, _) in wanted {
            match self.types.get_mut(*job_type) {
                Some(known) => known.batch = self.batch,
                None => new += 1,
            }
        }
        let over = (self.types.len() + new).saturating_sub(TYPES_MAX);
        if over == 0 {
            return;
        }
        let others = self.types.iter().filter(|(_, known)| known.batch != self.batch);
        let (mut real, mut made_up) = (Vec::new(), Vec::new());
        for (job_type, known) in others {
            let kind = if known.has_had_jobs { &mut real } else { &mut made_up };
            kind.push((known.batch, job_type.clone()));
        }
        real.sort_unstable();
        made_up.sort_unstable();
        let excess = real.len().saturating_sub(TYPES_MAX);
        for (_, job_type) in made_up.into_iter().take(over).chain(real.into_iter().take(excess)) {
            self.types.remove(&job_type);
        }
    }

    /// Adds what a search found: of each level the first `most` candidates in order, ready at `moment_us` by
    /// the database's clock.
    pub fn found(&mut self, search: &Search, rows: Vec<Candidate>, moment_us: i64, most: usize, now_ms: u64) {
        let Some(known) = self.types.get_mut(&search.job_type) else { return };
        known.has_had_jobs |= !rows.is_empty();
        let levels = &mut known.levels;
        let mut counts = [0_usize; PRIORITIES];
        for candidate in rows {
            let Some(place) = place_of(candidate.priority) else { continue };
            let level = &mut levels[place];
            counts[place] += 1;
            level.next_us = candidate.ready_us;
            level.add(candidate);
        }
        for (level, count) in levels.iter_mut().zip(counts) {
            level.may_have_more = count >= most;
            level.searched_ms = Some(now_ms);
            if !level.may_have_more {
                level.next_us = moment_us;
            }
            // What was found stays: a claim must not come away empty because others were noticed meanwhile.
            if let Some(us) = level.noticed_us.take() {
                level.search_from(us);
            }
        }
    }

    /// Takes up to `count` candidates of these types, the first by score first.
    pub fn take(&mut self, types: &[String], count: usize) -> Vec<Candidate> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let mut first: Option<((i64, i64), &String, usize)> = None;
            for job_type in types {
                let Some(known) = self.types.get(job_type) else { continue };
                for (place, level) in known.levels.iter().enumerate() {
                    let Some(head) = level.ahead.front() else { continue };
                    let score = (head.ready_us + i64::from(head.priority) * self.bonus_us, head.job);
                    if first.is_none_or(|(best, ..)| score < best) {
                        first = Some((score, job_type, place));
                    }
                }
            }
            let Some((_, job_type, place)) = first else { break };
            let level = self.types.get_mut(job_type).map(|known| &mut known.levels[place]);
            taken.extend(level.and_then(|level| level.ahead.pop_front()));
        }
        taken
    }

    /// Returns candidates that were taken and not claimed.
    pub fn put_back(&mut self, candidates: Vec<Candidate>) {
        for candidate in candidates {
            self.notice(&candidate.job_type, candidate.priority, candidate.ready_us);
        }
    }

    /// An entry became visible: a job of this type and priority is or will be ready at this time. The search
    /// for it goes back if it has gone past.
    pub fn notice(&mut self, job_type: &str, priority: i16, ready_us: i64) {
        if let (Some(known), Some(place)) = (self.types.get_mut(job_type), place_of(priority)) {
            known.has_had_jobs = true;
            let level = &mut known.levels[place];
            level.noticed_us = Some(level.noticed_us.map_or(ready_us, |known| known.min(ready_us)));
            level.go_back(ready_us);
        }
    }

    /// Another process takes the same candidates: what was read ahead is old.
    pub fn forget_ahead(&mut self) {
        for level in self.types.values_mut().flat_map(|known| &mut known.levels) {
            if let Some(first) = level.ahead.front().map(|first| first.ready_us) {
                level.go_back(first);
            }
        }
    }

    /// Entries may have become visible without notice: everything is searched from the start.
    pub fn forget(&mut self) {
        self.types.clear();
    }

    /// The types that are known, with the place from which each level is searched next.
    #[must_use]
    pub fn known(&self) -> Vec<Search> {
        let known = self.types.iter();
        known
            .map(|(job_type, known)| Search {
                job_type: job_type.clone(),
                starts: known.levels.each_ref().map(|level| {
                    level.ahead.front().map_or(level.next_us, |first| first.ready_us.min(level.next_us))
                }),
            })
            .collect()
    }
}

fn place_of(priority: i16) -> Option<usize> {
    usize::try_from(priority).ok().and_then(|priority| priority.checked_sub(1)).filter(|p| *p < PRIORITIES)
}

#[cfg(test)]
mod tests;
