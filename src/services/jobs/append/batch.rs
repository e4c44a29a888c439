//! Decides and commits one batch of commands: reads the present states, decides by the rules of `decide`, and
//! appends what was decided in one statement. A step that another process has taken meanwhile is decided
//! again from the new state.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::sleep;

use super::JobJournal;
use super::handover::{HandOver, facts_of};
use super::plan::{Plan, Read, StepOwner};
use super::queue::{ReadyNotice, merged};
use super::rows::{self, Claimed};
use super::statement::{NotStored, PlannedStep, StoredJob, append};
use super::taken::Taken;
use super::{JobAnswer, Submitted};
use crate::services::jobs::command::{Claim, JobChange, JobCommand};
use crate::services::jobs::decide::{
    Decision, NotServed, Refusal, Settled, decide, leased, may_claim, repeated,
};
use crate::services::jobs::event::{ClaimedJob, Entry, JobFacts, Lease, Status};
use crate::store::Error;
use crate::store::append::Client;

/// Rounds after which a command whose step was always taken by others is given up.
const ROUNDS_MAX: u32 = 8;

/// Pause before the next round, times the number of rounds, when others are about to commit all candidates: another
/// process, or an earlier attempt of this batch whose answer was lost.
const CONFLICT_PAUSE: Duration = Duration::from_millis(5);

/// Candidates that a search reads ahead, of each type and priority, beyond those that are wanted.
const READ_AHEAD: usize = 128;

/// A batch at work.
pub(super) struct Batch<'a> {
    pub(super) journal: &'a JobJournal,
    pub(super) client: &'a Client,
    pub(super) commands: &'a [JobCommand],
    answers: Vec<Option<JobAnswer>>,
    /// What became ready.
    notices: Vec<ReadyNotice>,
    /// Candidates that were not tried: no slot was free, or another command of the batch changes the job.
    left: Taken<'a>,
    /// Candidates that were tried, and that others had changed.
    conflicting: Taken<'a>,
    /// Whether a claim found only candidates that others are about to commit.
    has_conflicts_only: bool,
}

impl<'a> Batch<'a> {
    pub(super) fn new(journal: &'a JobJournal, client: &'a Client, commands: &'a [JobCommand]) -> Self {
        let answers = vec![None; commands.len()];
        Self {
            journal,
            client,
            commands,
            answers,
            notices: Vec::new(),
            left: Taken::new(&journal.queue),
            conflicting: Taken::new(&journal.queue),
            has_conflicts_only: false,
        }
    }

    /// Answers every command. Everything that is said to be done is committed.
    pub(super) async fn run(mut self) -> Result<(Vec<JobAnswer>, Vec<ReadyNotice>), Error> {
        for round in 1..=ROUNDS_MAX {
            let open: Vec<usize> =
                (0..self.commands.len()).filter(|index| self.answers[*index].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let mut read = self.read(&open, round).await?;
            let mut plan = self.plan(&open, &mut read);
            let (known, unknown) = self.remembered(&plan);
            let lookups: Vec<(i64, i32)> =
                plan.lookups.iter().map(|(_, job, attempt)| (*job, *attempt)).collect();
            let planned_leases: Vec<_> = plan.hand_overs.iter().map(|(place, to)| to.lease(*place)).collect();
            // Sent together: what a worker is told about its jobs never changes.
            let (stored, facts, outcomes) = tokio::try_join!(
                append(self.client, &plan.steps, &plan.submissions, &planned_leases),
                rows::facts(self.client, &unknown),
                rows::outcomes(self.client, &lookups),
            )?;
            read.facts = facts;
            read.facts.extend(known);
            for (index, job, attempt) in &plan.lookups {
                if let JobCommand::Change(change) = &self.commands[*index] {
                    let answer = repeated(&change.change, outcomes.get(&(*job, *attempt)));
                    self.answers[*index] = Some(answer.map_or_else(JobAnswer::Refused, JobAnswer::Settled));
                }
            }
            let leased: HashMap<usize, i64> = stored.leases.into_iter().collect();
            for job in stored.jobs {
                if let Some(index) = plan.submission_commands.get(job.place) {
                    self.submitted(*index, &job, stored.moment_us, leased.contains_key(&job.place));
                }
            }
            self.hand_over(&mut plan, &leased, stored.moment_us);
            let is_stored: HashSet<usize> = stored.steps.into_iter().collect();
            self.settle(plan, &read, &is_stored, stored.moment_us);
            if std::mem::take(&mut self.has_conflicts_only) {
                sleep(CONFLICT_PAUSE * round).await;
                self.conflicting.put_back();
            }
        }
        // Their steps may be free after all: another transaction was rolled back, or only the slot was taken.
        self.left.put_back();
        self.conflicting.put_back();
        let given_up = |command: &JobCommand| match command {
            JobCommand::Claim(_) => JobAnswer::Claimed(Vec::new()),
            JobCommand::Submit(_) | JobCommand::Change(_) => JobAnswer::Contended,
        };
        let answers = self.answers.into_iter().zip(self.commands);
        let answers = answers.map(|(answer, command)| answer.unwrap_or_else(|| given_up(command)));
        Ok((answers.collect(), merged(self.notices)))
    }

    /// Reads what the open commands need, in one round trip.
    async fn read(&self, open: &[usize], round: u32) -> Result<Read, Error> {
        let commands = || open.iter().map(|index| &self.commands[*index]);
        // What is remembered may be old: an entry whose step was taken meanwhile is decided again from what is stored.
        let memory = self.journal.queue.memory();
        let end = |index: &usize| Some((*index, memory.end_of_attempt(self.commands[*index].change()?)?));
        let ends: HashMap<usize, Box<Entry>> =
            if round == 1 { open.iter().filter_map(end).collect() } else { HashMap::new() };
        let undecided = open.iter().filter(|index| !ends.contains_key(index));
        let jobs: Vec<i64> =
            undecided.filter_map(|index| Some(self.commands[*index].change()?.job)).collect();
        let claims: Vec<&Claim> = commands().filter_map(JobCommand::claim).collect();
        let hand_overs =
            HandOver::reserve(&self.journal.queue, &self.journal.running_max, self.commands, open);
        let doubted: Vec<&Claim> =
            claims.iter().copied().filter(|claim| round > 1 || memory.may_have_leased(claim)).collect();
        let waiting = hand_overs.iter().map(HandOver::claim);
        let workers: Vec<&str> =
            claims.iter().copied().chain(waiting).map(|claim| claim.worker.as_str()).collect();
        let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
        for claim in &claims {
            for job_type in &claim.types {
                *wanted.entry(job_type).or_default() += claim.count;
            }
        }
        let limits: Vec<(&str, i32)> = wanted
            .keys()
            .filter_map(|job_type| Some((*job_type, *self.journal.running_max.get(*job_type)?)))
            .collect();
        let most = wanted.values().max().copied().unwrap_or(0) + READ_AHEAD;
        let (queue, now_ms) = (&self.journal.queue, self.journal.queue.now_ms());
        let searches = queue.index().searches(wanted.iter().map(|(t, count)| (*t, *count)), now_ms);
        let (states, claimed, workers, slots, (mut found, moment_us)) = tokio::try_join!(
            rows::states(self.client, &jobs),
            rows::claimed(self.client, &doubted),
            rows::workers(self.client, &workers),
            rows::slots(self.client, &limits),
            rows::ready(self.client, &searches, most),
        )?;
        let mut index = queue.index();
        for search in &searches {
            let rows = found.remove(&search.job_type).unwrap_or_default();
            index.found(search, rows, moment_us, most, now_ms);
        }
        drop(index);
        Ok(Read { states, claimed, workers, slots, facts: HashMap::new(), hand_overs, ends })
    }

    /// Decides the open commands. Those that change nothing are answered.
    fn plan(&mut self, open: &[usize], read: &mut Read) -> Plan<'a> {
        let mut plan = Plan::new(&self.journal.queue);
        for index in open {
            match &self.commands[*index] {
                JobCommand::Submit(submission) => {
                    let to = read.hand_overs.extract_if(.., |to| to.command == *index).next();
                    let is_served = |to: &HandOver| {
                        may_claim(read.workers.get(&to.claim().worker), &to.claim().types).is_ok()
                    };
                    plan.hand_overs.extend(to.filter(is_served).map(|to| (plan.submissions.len(), to)));
                    plan.submissions.push(submission);
                    plan.submission_commands.push(*index);
                }
                JobCommand::Change(change) => self.plan_change(*index, change, read, &mut plan),
                JobCommand::Claim(_) => {}
            }
        }
        // Claims come last: a job that this batch changes is not claimed by it.
        let mut changed: HashSet<i64> = plan.steps.iter().map(|step| step.entry.job).collect();
        for index in open {
            if let JobCommand::Claim(claim) = &self.commands[*index] {
                self.plan_claim(*index, claim, read, &mut changed, &mut plan);
            }
        }
        plan
    }

    fn plan_change(&mut self, index: usize, change: &JobChange, read: &mut Read, plan: &mut Plan<'a>) {
        let decision = match (read.ends.remove(&index), read.states.get(&change.job)) {
            (Some(entry), _) => Decision::Append(entry),
            (None, None) => Decision::Refused(Refusal::Unknown),
            (None, Some((state, now_us))) => decide(state, change, *now_us),
        };
        match decision {
            Decision::Append(entry) => {
                plan.steps.push(PlannedStep { entry: *entry, slot: None });
                plan.step_owners.push(StepOwner { command: index, is_claim: false });
            }
            Decision::LookUp { attempt } => plan.lookups.push((index, change.job, attempt)),
            Decision::Settled(settled) => self.answers[index] = Some(JobAnswer::Settled(settled)),
            Decision::Refused(refusal) => self.answers[index] = Some(JobAnswer::Refused(refusal)),
        }
    }

    fn plan_claim(
        &mut self,
        index: usize,
        claim: &Claim,
        read: &mut Read,
        changed: &mut HashSet<i64>,
        plan: &mut Plan<'a>,
    ) {
        if let Some(earlier) = read.claimed.get(&claim.id) {
            self.answers[index] = Some(earlier_answer(claim, earlier));
            return;
        }
        // A copy of a claim of this round is left to the next one, which sees what that claim has leased.
        if !plan.claims.insert(claim.id) {
            return;
        }
        if let Err(why) = may_claim(read.workers.get(&claim.worker), &claim.types) {
            self.answers[index] = Some(JobAnswer::NotServed(why));
            return;
        }
        let is_open = |job_type: &&String| match self.journal.running_max.get(*job_type) {
            None => true,
            Some(_) => read.slots.get(*job_type).is_some_and(|free| !free.is_empty()),
        };
        let types: Vec<String> = claim.types.iter().filter(is_open).cloned().collect();
        let mut planned = 0;
        let candidates = self.journal.queue.index().take(&types, claim.count);
        for candidate in candidates {
            let limited = self.journal.running_max.contains_key(&candidate.job_type);
            let slot = read.slots.get_mut(&candidate.job_type).and_then(Vec::pop);
            if (limited && slot.is_none()) || !changed.insert(candidate.job) {
                self.left.push(candidate);
                continue;
            }
            plan.steps.push(PlannedStep { entry: leased(claim, &candidate), slot });
            plan.step_owners.push(StepOwner { command: index, is_claim: true });
            plan.candidates.push(candidate);
            planned += 1;
        }
        if planned > 0 {
            return;
        }
        if self.conflicting.as_slice().is_empty() {
            self.answers[index] = Some(JobAnswer::Claimed(Vec::new()));
        } else {
            self.has_conflicts_only = true;
        }
    }

    /// Gives waiting workers the jobs that were leased to them. The others claim by themselves.
    fn hand_over(&self, plan: &mut Plan<'a>, leased: &HashMap<usize, i64>, moment_us: i64) {
        for (place, to) in std::mem::take(&mut plan.hand_overs) {
            if let (Some(leased_us), Some(submission)) = (leased.get(&place), plan.submissions.get(place)) {
                self.journal.metrics.leased(1);
                to.complete(&self.journal.queue, submission, moment_us, *leased_us);
            }
        }
    }

    /// What is remembered of the candidates, and the numbers of the others.
    fn remembered(&self, plan: &Plan<'a>) -> (Vec<(i64, JobFacts)>, Vec<i64>) {
        let memory = self.journal.queue.memory();
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for candidate in plan.candidates.as_slice() {
            match memory.facts(candidate.job) {
                Some(facts) => known.push((candidate.job, (*facts).clone())),
                None => unknown.push(candidate.job),
            }
        }
        (known, unknown)
    }

    fn submitted(&mut self, index: usize, stored: &StoredJob, moment_us: i64, is_leased: bool) {
        let JobCommand::Submit(submission) = &self.commands[index] else { return };
        self.answers[index] = Some(match stored.status {
            Err(NotStored::UnknownDependency) => JobAnswer::UnknownDependency,
            Err(NotStored::Contended) => JobAnswer::Contended,
            Err(NotStored::Erased) => JobAnswer::Erased,
            Ok(status) => {
                if !stored.is_known && status == Status::Pending && !is_leased {
                    let ready_us = submission.run_at_us.unwrap_or(moment_us);
                    let jobs = usize::from(ready_us <= moment_us);
                    self.became_ready(&submission.job_type, submission.priority, ready_us, jobs);
                    self.journal.queue.memory().submitted(facts_of(submission, moment_us));
                }
                JobAnswer::Submitted(Submitted { job: stored.job, status, is_known: stored.is_known })
            }
        });
    }

    /// Answers the commands whose steps were stored. Of a claim, a candidate that was taken by others is
    /// dropped; a claim that got none is decided again.
    fn settle(&mut self, mut plan: Plan<'a>, read: &Read, is_stored: &HashSet<usize>, moment_us: i64) {
        let mut claimed: BTreeMap<usize, Vec<ClaimedJob>> = BTreeMap::new();
        let (mut tried, mut conflicting) = (0_usize, 0_usize);
        let mut candidates = plan.candidates.hand_over().into_iter();
        let memory = self.journal.queue.memory();
        for (index, (step, owner)) in plan.steps.into_iter().zip(plan.step_owners).enumerate() {
            let StepOwner { command, is_claim } = owner;
            let (entry, is_stored) = (step.entry, is_stored.contains(&index));
            let expires_us = entry.lease.map(|(_, length_s)| moment_us + i64::from(length_s) * 1_000_000);
            if !is_claim {
                memory.changed(entry.job);
            }
            if let Some(candidate) = is_claim.then(|| candidates.next()).flatten() {
                tried += 1;
                let jobs = claimed.entry(command).or_default();
                if let (true, Some((claim, length_s)), Some(expires_us), Some(facts)) =
                    (is_stored, entry.lease, expires_us, read.facts.get(&entry.job))
                {
                    let job = ClaimedJob {
                        facts: facts.clone(),
                        priority: entry.priority,
                        attempt: entry.attempt,
                        failures: entry.failures,
                        lease: Lease { claim, length_s, expires_us },
                        leased_us: moment_us,
                    };
                    memory.leased(entry.worker.as_deref().unwrap_or_default(), entry.step, &job);
                    jobs.push(job);
                } else {
                    conflicting += 1;
                    self.conflicting.push(candidate);
                }
            } else if is_stored {
                if let Some(after_us) = entry.ready_after_us {
                    let jobs = usize::from(after_us <= 0);
                    self.became_ready(&entry.job_type, entry.priority, moment_us + after_us, jobs);
                }
                self.journal.metrics.changed(entry.kind, entry.status);
                self.answers[command] = Some(JobAnswer::Settled(Settled {
                    status: entry.status,
                    expires_us,
                    is_repeated: false,
                    is_recorded: true,
                }));
            }
        }
        for (command, jobs) in claimed {
            if !jobs.is_empty() {
                self.journal.metrics.leased(jobs.len());
                self.answers[command] = Some(JobAnswer::Claimed(jobs));
            }
        }
        if conflicting * 2 > tried {
            self.journal.queue.index().forget_ahead();
        }
        self.journal.metrics.claims_conflicted(conflicting);
    }

    fn became_ready(&mut self, job_type: &str, priority: i16, ready_us: i64, jobs: usize) {
        self.notices.push(ReadyNotice { job_type: job_type.to_owned(), priority, ready_us, jobs });
    }
}

/// The answer to a claim that has leased jobs before: the jobs that it still holds.
fn earlier_answer(claim: &Claim, earlier: &Claimed) -> JobAnswer {
    if earlier.worker.as_ref() == Some(&claim.worker) {
        JobAnswer::Claimed(earlier.jobs.clone())
    } else {
        JobAnswer::NotServed(NotServed::OtherWorker)
    }
}
