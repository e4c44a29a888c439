//! Decides what happens to a worker.

use super::submission::{WEBHOOK, is_reserved};
use crate::services::jobs::command::WorkerCommand;
use crate::services::jobs::event::{WorkerEvent, WorkerState, WorkerStatus};

/// Most workers that are online, or that people suspend, drain or gave a secret. One that went offline without a
/// secret does not count: each start of `quipu worker` without an id is another worker.
pub const WORKERS_MAX: i64 = 10_000;

/// Least time between two records of a worker's heartbeat, microseconds.
const BEAT_INTERVAL_US: i64 = 5_000_000;

/// Why a change of a worker is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WorkerRefusal {
    /// There is no such worker.
    #[error("worker not found")]
    Unknown,
    /// A worker of this id exists.
    #[error("worker already exists")]
    Exists,
    /// It is disabled, or was when it was removed.
    #[error("the worker is disabled")]
    Disabled,
    /// It has a secret for another type: an administrator chose the type.
    #[error("the worker was created for another type")]
    OtherType,
    /// The id belongs to webhooks.
    #[error("the id is reserved: `{WEBHOOK}` and names below it belong to webhooks")]
    Reserved,
    /// There are [`WORKERS_MAX`] others.
    #[error("there are {WORKERS_MAX} workers, which is the most: remove those that are gone")]
    Full,
}

/// The state of a worker after an event; `None` if the event changes nothing.
///
/// A worker registers by itself, so its registration gives it no right that a person took from it: suspended stays
/// suspended, a worker that was disabled stays so after its removal, and one with a secret of its own keeps the type
/// for which it was created.
///
/// # Errors
/// Why the event is refused.
pub fn change_worker(
    state: Option<&WorkerState>,
    command: &WorkerCommand,
) -> Result<Option<WorkerState>, WorkerRefusal> {
    let present = state.filter(|state| state.status != WorkerStatus::Removed);
    let step = state.map_or(0, |state| state.step) + 1;
    let profile = command.profile.as_ref();
    let with_profile = |status, is_enabled| {
        let known = present;
        Some(WorkerState {
            worker: command.worker.clone(),
            step,
            status,
            is_enabled,
            job_type: profile
                .map(|profile| profile.job_type.clone())
                .or_else(|| known.map(|known| known.job_type.clone()))
                .unwrap_or_default(),
            name: profile
                .and_then(|profile| profile.name.clone())
                .or_else(|| known.and_then(|k| k.name.clone())),
            metadata: profile
                .and_then(|profile| profile.metadata.clone())
                .or_else(|| known.and_then(|k| k.metadata.clone())),
        })
    };
    let begins = matches!(command.event, WorkerEvent::Created | WorkerEvent::Registered);
    if begins && is_reserved(&command.worker) {
        return Err(WorkerRefusal::Reserved);
    }
    if command.event == WorkerEvent::Created {
        return if present.is_some() {
            Err(WorkerRefusal::Exists)
        } else {
            Ok(with_profile(WorkerStatus::Offline, true))
        };
    }
    if command.event == WorkerEvent::Registered {
        if state.is_some_and(|state| !state.is_enabled) {
            return Err(WorkerRefusal::Disabled);
        }
        // The actor of a request with the worker's own secret.
        let is_own = command.actor.strip_prefix("worker:") == Some(command.worker.as_str());
        let is_other_type =
            |known: &WorkerState| profile.is_some_and(|profile| profile.job_type != known.job_type);
        if is_own && present.is_some_and(is_other_type) {
            return Err(WorkerRefusal::OtherType);
        }
        let is_suspended = present.is_some_and(|known| known.status == WorkerStatus::Suspended);
        let status = if is_suspended { WorkerStatus::Suspended } else { WorkerStatus::Online };
        return Ok(with_profile(status, true));
    }
    let known = present.ok_or(WorkerRefusal::Unknown)?;
    let (status, is_enabled) = match command.event {
        WorkerEvent::Unregistered if known.status != WorkerStatus::Suspended => {
            (WorkerStatus::Offline, known.is_enabled)
        }
        // A worker that is not online stays what it is.
        WorkerEvent::Lost if known.status == WorkerStatus::Online => {
            (WorkerStatus::Offline, known.is_enabled)
        }
        WorkerEvent::Returned if known.status == WorkerStatus::Offline => {
            (WorkerStatus::Online, known.is_enabled)
        }
        WorkerEvent::Draining => (WorkerStatus::Draining, known.is_enabled),
        WorkerEvent::Suspended => (WorkerStatus::Suspended, known.is_enabled),
        WorkerEvent::Resumed => (WorkerStatus::Online, known.is_enabled),
        WorkerEvent::Enabled => (known.status, true),
        WorkerEvent::Disabled => (known.status, false),
        WorkerEvent::Removed => (WorkerStatus::Removed, known.is_enabled),
        WorkerEvent::Unregistered
        | WorkerEvent::Lost
        | WorkerEvent::Returned
        | WorkerEvent::Created
        | WorkerEvent::Registered => (known.status, known.is_enabled),
    };
    if (status, is_enabled) == (known.status, known.is_enabled) {
        return Ok(None);
    }
    Ok(Some(WorkerState { step, status, is_enabled, ..known.clone() }))
}

/// Whether a heartbeat is recorded: the last record is five seconds old, or the worker works on another job.
#[must_use]
pub fn is_new_beat(last: Option<(i64, Option<i64>)>, now_us: i64, job: Option<i64>) -> bool {
    last.is_none_or(|(seen_us, known)| known != job || now_us - seen_us >= BEAT_INTERVAL_US)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::jobs::command::WorkerProfile;

    fn event(event: WorkerEvent) -> WorkerCommand {
        let profile = WorkerProfile { job_type: "pdf".to_owned(), name: None, metadata: None };
        let brings = matches!(event, WorkerEvent::Created | WorkerEvent::Registered);
        WorkerCommand {
            worker: "w".to_owned(),
            event,
            profile: brings.then_some(profile),
            actor: "local".to_owned(),
        }
    }

    /// Plays events from nothing; returns the last state.
    fn play(events: &[WorkerEvent]) -> Result<Option<WorkerState>, WorkerRefusal> {
        let mut state: Option<WorkerState> = None;
        for happened in events {
            if let Some(next) = change_worker(state.as_ref(), &event(*happened))? {
                assert_eq!(next.step, state.map_or(0, |state| state.step) + 1);
                state = Some(next);
            }
        }
        Ok(state)
    }

    fn status(events: &[WorkerEvent]) -> (WorkerStatus, bool) {
        let state = play(events).unwrap().unwrap();
        (state.status, state.is_enabled)
    }

    #[test]
    fn a_worker_registers_is_lost_and_returns() {
        use WorkerEvent::{Lost, Registered, Returned, Unregistered};
        assert_eq!(status(&[Registered]), (WorkerStatus::Online, true));
        assert_eq!(status(&[Registered, Lost]), (WorkerStatus::Offline, true));
        assert_eq!(status(&[Registered, Lost, Lost, Returned]), (WorkerStatus::Online, true));
        assert_eq!(status(&[Registered, Unregistered]), (WorkerStatus::Offline, true));
        assert_eq!(play(&[Lost]), Err(WorkerRefusal::Unknown));
    }

    #[test]
    fn a_draining_worker_stays_so_until_it_unregisters_or_registers_again() {
        use WorkerEvent::{Draining, Lost, Registered, Resumed, Returned, Unregistered};
        assert_eq!(status(&[Registered, Draining, Lost, Returned]), (WorkerStatus::Draining, true));
        assert_eq!(status(&[Registered, Draining, Unregistered]), (WorkerStatus::Offline, true));
        assert_eq!(status(&[Registered, Draining, Registered]), (WorkerStatus::Online, true));
        assert_eq!(status(&[Registered, Draining, Resumed]), (WorkerStatus::Online, true));
    }

    #[test]
    fn a_suspended_worker_stays_so_until_it_is_resumed() {
        use WorkerEvent::{Lost, Registered, Resumed, Returned, Suspended, Unregistered};
        let suspended = (WorkerStatus::Suspended, true);
        assert_eq!(status(&[Registered, Suspended, Registered]), suspended);
        assert_eq!(status(&[Registered, Suspended, Unregistered, Returned]), suspended);
        assert_eq!(status(&[Registered, Suspended, Unregistered, Registered, Lost, Returned]), suspended);
        assert_eq!(status(&[Registered, Suspended, Resumed]), (WorkerStatus::Online, true));
        assert_eq!(status(&[Registered, Suspended, Registered, Resumed]), (WorkerStatus::Online, true));
    }

    #[test]
    fn a_disabled_worker_cannot_register_and_a_removed_one_begins_anew() {
        use WorkerEvent::{Created, Disabled, Enabled, Registered, Removed};
        assert_eq!(play(&[Created, Disabled, Registered]), Err(WorkerRefusal::Disabled));
        assert_eq!(status(&[Created, Disabled, Enabled, Registered]), (WorkerStatus::Online, true));
        assert_eq!(play(&[Created, Created]), Err(WorkerRefusal::Exists));
        assert_eq!(play(&[Created, Removed, Disabled]), Err(WorkerRefusal::Unknown));
        assert_eq!(status(&[Created, Removed, Created]), (WorkerStatus::Offline, true));
    }

    #[test]
    fn a_registration_gives_back_nothing_that_a_person_took() {
        use WorkerEvent::{
            Created, Disabled, Enabled, Registered, Removed, Resumed, Suspended, Unregistered,
        };
        assert_eq!(status(&[Registered, Suspended, Registered]), (WorkerStatus::Suspended, true));
        let away = [Registered, Suspended, Unregistered, Registered];
        assert_eq!(status(&away), (WorkerStatus::Suspended, true));
        assert_eq!(status(&[Registered, Suspended, Registered, Resumed]), (WorkerStatus::Online, true));
        assert_eq!(play(&[Created, Disabled, Removed, Registered]), Err(WorkerRefusal::Disabled));
        assert_eq!(play(&[Created, Disabled, Removed, Enabled]), Err(WorkerRefusal::Unknown));
        assert_eq!(status(&[Created, Disabled, Removed, Created]), (WorkerStatus::Offline, true));
        assert_eq!(status(&[Created, Removed, Registered]), (WorkerStatus::Online, true));
    }

    #[test]
    fn a_worker_with_a_secret_keeps_its_type_and_reserved_ids_are_refused() {
        let created = change_worker(None, &event(WorkerEvent::Created)).unwrap().unwrap();
        let register = |actor: &str, job_type: &str| {
            let profile = WorkerProfile { job_type: job_type.to_owned(), name: None, metadata: None };
            let command = WorkerCommand {
                profile: Some(profile),
                actor: actor.to_owned(),
                ..event(WorkerEvent::Registered)
            };
            change_worker(Some(&created), &command).map(|state| state.unwrap().job_type)
        };
        assert_eq!(register("worker:w", "pdf"), Ok("pdf".to_owned()));
        assert_eq!(register("worker:w", "payroll"), Err(WorkerRefusal::OtherType));
        assert_eq!(register("token:ci", "payroll"), Ok("payroll".to_owned()));
        for begins in [WorkerEvent::Created, WorkerEvent::Registered] {
            let reserved = WorkerCommand { worker: "quipu.webhook.billing".to_owned(), ..event(begins) };
            assert_eq!(change_worker(None, &reserved), Err(WorkerRefusal::Reserved));
        }
    }

    #[test]
    fn heartbeats_are_recorded_every_five_seconds_and_with_each_new_job() {
        assert!(is_new_beat(None, 0, None));
        assert!(!is_new_beat(Some((0, Some(1))), 4_999_999, Some(1)));
        assert!(is_new_beat(Some((0, Some(1))), 5_000_000, Some(1)));
        assert!(is_new_beat(Some((0, Some(1))), 1, Some(2)));
    }
}
