//! Arbitrary bytes as the body of every endpoint of jobs and as their tokens, cursors, keys of files, signed grants
//! and cron expressions: no panic; what is accepted can be stored, and changes nothing without the lease.

#![no_main]

use std::str;

use chrono::{DateTime, TimeDelta};
use libfuzzer_sys::fuzz_target;
use quipu::services::jobs::command::{Change, FencedLease};
use quipu::services::jobs::decide::{
    Decision, Grant, GrantedMethod, LeaseKey, MultipartGrant, ObjectKey, RecurrenceError, SealError, StreamCursor,
    check_cron, due_times, lease_token, next_look, read_lease_token, repeated, seal, time_zone, unseal,
};
use quipu::services::jobs::edge::dry_run::{Asked, dry_run};
use quipu::services::jobs::event::{JobState, Kind, Lease, Outcome, Status};
use serde_json::Value;
use uuid::Uuid;

const KEY: LeaseKey = [7; 32];
const CLAIM: Uuid = Uuid::from_u128(0x1234);
const JOB: i64 = 7;

/// Stands in bodies for the token of the lease, which random bytes never are.
const TOKEN: &str = "$TOKEN";

fuzz_target!(|bytes: &[u8]| {
    let Some((chosen, rest)) = bytes.split_first_chunk::<4>() else { return };
    bodies(*chosen, rest);
    lease(*chosen, rest);
    let Ok(text) = str::from_utf8(rest) else { return };
    cursor(text);
    object_key(text);
    grants(*chosen, text);
    cron(*chosen, text);
});

/// A job in a state that the bytes choose.
fn state([status, attempt, failures, worker]: [u8; 4]) -> JobState {
    let status = Status::ALL[usize::from(status) % Status::ALL.len()];
    let is_running = status == Status::Running;
    let attempt = i32::from(attempt % 4) + i32::from(is_running);
    JobState {
        job: JOB,
        step: attempt * 2,
        job_type: "pdf".to_owned(),
        status,
        priority: 3,
        attempt,
        failures: i32::from(failures % 4),
        attempts_max: 3,
        worker: (attempt > 0).then(|| if worker % 2 == 0 { "w1".to_owned() } else { "w2".to_owned() }),
        lease: is_running.then_some(Lease { claim: CLAIM, length_s: 60, expires_us: 60_000_000 }),
        ready_us: matches!(status, Status::Pending | Status::Failed | Status::Waiting).then_some(0),
        run_at_us: 0,
        is_blocked: status == Status::Cancelled && failures >= 128,
        logged_us: 0,
        is_just_leased: is_running,
    }
}

fn bodies(chosen: [u8; 4], bytes: &[u8]) {
    let state = state(chosen);
    let token = lease_token(&KEY, JOB, FencedLease { attempt: state.attempt, claim: CLAIM });
    let replaced = str::from_utf8(bytes).map(|text| text.replace(TOKEN, &token));
    let body = replaced.as_deref().map_or(bytes, str::as_bytes);
    for (endpoint, asked) in dry_run(body, &state, &KEY, i64::from(chosen[3]) * 1_000_000) {
        match asked {
            Asked::Change(change, decision) => decided(endpoint, &state, &change, decision),
            Asked::Submission(job) => {
                assert!((1..=5).contains(&job.priority) && (1..=100).contains(&job.attempts_max));
                let texts = [Some(&job.job_type), job.source_hash.as_ref(), job.source_path.as_ref()];
                assert!(texts.into_iter().flatten().all(|text| is_storable(text)), "{job:?}");
                assert!(!holds_nul(job.metadata.as_ref()) && !holds_nul(job.tags.as_ref()), "{job:?}");
            }
            Asked::Claim(claim) => {
                assert!(is_storable(&claim.worker) && claim.types.iter().all(|text| is_storable(text)));
                assert!((1..=100).contains(&claim.count) && (10..=86_400).contains(&claim.lease_s));
            }
            Asked::Schedule(set) => {
                assert!(
                    [&set.name, &set.cron, &set.job_type]
                        .into_iter()
                        .chain(&set.timezone)
                        .all(|text| is_storable(text)),
                    "{set:?}"
                );
            }
            Asked::Worker(id, profile) => {
                assert!(is_storable(&id) && is_storable(&profile.job_type));
                assert!(!holds_nul(profile.metadata.as_ref()));
            }
            Asked::Other => {}
        }
    }
}

fn decided(endpoint: &str, state: &JobState, change: &Change, decision: Decision) {
    let entry = match decision {
        Decision::Append(entry) => entry,
        Decision::LookUp { .. } => {
            for kind in [Kind::Completed, Kind::Expired] {
                let outcome = Outcome { kind, status: Status::Completed, worker: Some("w1".to_owned()) };
                let _ = repeated(change, Some(&outcome));
            }
            return;
        }
        Decision::Settled(_) | Decision::Refused(_) => return,
    };
    assert_eq!((entry.job, entry.step, entry.was), (JOB, state.step + 1, state.status), "{endpoint}");
    assert_eq!(entry.lease.is_some(), entry.status == Status::Running, "{endpoint}");
    assert_eq!(entry.attempt, state.attempt, "{endpoint}");
    assert!(entry.why.as_deref().is_none_or(|why| !why.contains('\0')) && !holds_nul(entry.detail.as_ref()));
    if let Change::Heartbeat { fence, .. }
    | Change::Complete { fence, .. }
    | Change::Fail { fence, .. }
    | Change::Release { fence, .. } = change
    {
        assert_eq!(state.status, Status::Running, "{endpoint}");
        assert!(fence.worker.is_some() || fence.lease.is_some(), "{endpoint}");
        assert!(fence.worker.is_none() || fence.worker == state.worker, "{endpoint}");
        let own = FencedLease { attempt: state.attempt, claim: CLAIM };
        assert!(fence.lease.is_none_or(|named| named == own), "{endpoint}");
    }
}

/// Tokens: read as they were made, and no others.
fn lease(chosen: [u8; 4], bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert!(read_lease_token(&KEY, JOB, &text).is_err(), "a token was guessed");
    let mut claim = [0; 16];
    claim.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let lease = FencedLease { attempt: i32::from_be_bytes(chosen), claim: Uuid::from_bytes(claim) };
    let token = lease_token(&KEY, JOB, lease);
    assert_eq!(read_lease_token(&KEY, JOB, &token), Ok(lease));
    assert!(read_lease_token(&KEY, JOB + 1, &token).is_err());
}

fn cursor(text: &str) {
    if let Ok(cursor) = text.parse::<StreamCursor>() {
        assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
        let _ = cursor.compare(text);
    }
}

/// A key has one spelling, and stays within its folder.
fn object_key(text: &str) {
    if let Ok(key) = ObjectKey::parse("key", text) {
        assert_eq!(key.to_string(), text);
        assert!(text.split('/').all(|part| !part.is_empty() && !part.starts_with('.')), "{text}");
    }
    if let Ok(key) = ObjectKey::of_output(JOB, 1, text) {
        assert_eq!(ObjectKey::parse("key", &key.to_string()), Ok(key));
    }
}

fn grants(chosen: [u8; 4], text: &str) {
    assert!(unseal::<Grant>(&KEY, text, 0).is_err() && unseal::<MultipartGrant>(&KEY, text, 0).is_err());
    if text.len() > 1_000 {
        return;
    }
    let number = u64::from(u32::from_be_bytes(chosen));
    let grant = Grant {
        method: GrantedMethod::Put,
        key: text.to_owned(),
        expires: 100,
        content_type: Some(text.to_owned()),
        size: Some(number),
        sha256: None,
        claim: Some(CLAIM),
        part: None,
        actor: "local".to_owned(),
    };
    let sealed = seal(&KEY, &grant);
    // A text that grows sixfold as JSON may be too long.
    if sealed.len() <= 4_096 {
        assert_eq!(unseal::<Grant>(&KEY, &sealed, 99), Ok(grant));
        assert_eq!(unseal::<Grant>(&KEY, &sealed, 100), Err(SealError::Expired));
        assert_eq!(unseal::<MultipartGrant>(&KEY, &sealed, 99), Err(SealError::Foreign));
        assert_eq!(unseal::<Grant>(&[8; 32], &sealed, 99), Err(SealError::Foreign));
    }
    let upload = MultipartGrant {
        key: String::new(),
        upload: String::new(),
        size: number.saturating_mul(number),
        // The server seals no part size of 0.
        part_size: (u64::from(chosen[3]) << (chosen[0] % 64)).max(1),
        content_type: String::new(),
        sha256: None,
        claim: None,
        expires: 0,
    };
    for part in [0, 1, 2, u32::MAX, u32::from(chosen[1])] {
        assert!(upload.size_of(part).is_none_or(|size| size > 0 && size <= upload.size), "{upload:?}");
    }
    let _ = upload.parts();
}

fn cron(chosen: [u8; 4], text: &str) {
    let now = DateTime::from_timestamp(i64::from(u32::from_be_bytes(chosen)), 0).expect("in range");
    let zones = [None, Some("Europe/Berlin"), Some("Australia/Lord_Howe"), Some("America/Havana")];
    for (zone, (seconds, most)) in zones.into_iter().flat_map(|zone| [(zone, (7_200, 1)), (zone, (20, 20))]) {
        let after = now - TimeDelta::seconds(seconds);
        let checked = check_cron(text, time_zone(zone).expect("a zone of the database"), after);
        let due = due_times(text, zone, after, now);
        assert_eq!(due.is_err(), matches!(checked, Err(RecurrenceError::Cron(_))), "{text}");
        let due = due.unwrap_or_default();
        assert!(due.iter().all(|due| *due > after && *due <= now), "{zone:?} {text}: {due:?}");
        assert!(due.len() <= most && due.is_sorted(), "{zone:?} {text}: {due:?}");
        // What is due was foreseen, both when it was set and at the look before.
        assert!(due.is_empty() || checked.is_ok(), "{zone:?} {text}: {due:?}");
        if let (Some(first), Ok(next)) = (due.first(), next_look(text, zone, after)) {
            assert!(next <= *first, "{zone:?} {text}: {next} {due:?}");
        }
    }
}

fn is_storable(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

/// True when a key or a text holds NUL, which jsonb cannot hold.
fn holds_nul(value: Option<&Value>) -> bool {
    match value {
        Some(Value::String(text)) => text.contains('\0'),
        Some(Value::Array(values)) => values.iter().any(|value| holds_nul(Some(value))),
        Some(Value::Object(fields)) => {
            fields.iter().any(|(key, value)| key.contains('\0') || holds_nul(Some(value)))
        }
        _ => false,
    }
}
