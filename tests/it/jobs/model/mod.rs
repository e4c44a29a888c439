//! The lease protocol, checked in every order in which it can happen.
//!
//! Workers claim, heartbeat, complete, fail and release; leases expire; people cancel and retry. Two processes of
//! the server read, decide by the rules of `decide` themselves, and append, and the journal accepts each key (job,
//! step) once. Between two statements of one process everything else may happen. Each request may arrive at any
//! time, again, or never, from the worker itself, from another one with its lease token, and from old clients
//! without a token: so crashes, stalls, lost and repeated answers and late messages need no actions of their own.
//!
//! The model has no clock: expiry is possible in every state, as if the time of a lease were always over. It leaves
//! out priorities, limits of types and progress, and does not cover dependencies, times before which a job is not
//! claimed, and the registration, draining and suspension of workers: `decide::lives`, `decide::worker` and
//! `jobs::dependencies` do. One recorded renewal of each
//! lease stands for all, and the number of leases and retries is bounded: `make test` visits 40,337 states of one job
//! and 37,476 of two, `make soak` those of one job with three leases, too. `jobs::chaos` runs the same with the real
//! service.

mod journal;
mod promises;
mod protocol;

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker as _, HasDiscoveries, Model as _};

use crate::support::rounds::rounds;
use promises::{LOST_LEASE, ONE_COMPLETION, OWN_JOB};
use protocol::Protocol;

/// Two workers with one job, two attempts and one retry by a person, at two processes.
const ONE_JOB: Protocol = Protocol {
    workers: 2,
    jobs: 1,
    processes: 2,
    attempts_max: 2,
    leases: 2,
    retries: 1,
    reads_tokens: true,
    has_key: true,
};

/// Visits every state; fails with the shortest way to one that breaks a promise.
fn check(protocol: Protocol) {
    let started = Instant::now();
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!("{} states in {:?}: {protocol:?}", checker.unique_state_count(), started.elapsed());
    checker.assert_properties();
}

#[test]
fn in_every_order_of_events_the_lease_protocol_keeps_its_promises() {
    check(ONE_JOB);
    if rounds() > 1 {
        check(Protocol { leases: 3, ..ONE_JOB });
    }
}

#[test]
fn with_two_jobs_no_token_opens_the_other_one() {
    check(Protocol { jobs: 2, leases: 1, attempts_max: 1, retries: 0, ..ONE_JOB });
}

/// The model finds what the rules prevent.
#[test]
fn a_server_that_reads_no_tokens_or_has_no_key_breaks_promises() {
    let found = |protocol: Protocol, promise| {
        let wanted = HasDiscoveries::AnyOf(BTreeSet::from([promise]));
        let checker = protocol.checker().threads(2).finish_when(wanted).spawn_bfs().join();
        let path = checker.discovery(promise).unwrap_or_else(|| panic!("not found: {promise}"));
        println!("{promise}: {:?}", path.into_actions());
    };
    let small = Protocol { retries: 0, ..ONE_JOB };
    found(Protocol { reads_tokens: false, ..small }, LOST_LEASE);
    found(Protocol { has_key: false, ..small }, ONE_COMPLETION);
    found(Protocol { has_key: false, ..small }, OWN_JOB);
}
