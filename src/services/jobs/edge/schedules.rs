//! Schedules of recurring jobs.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::JobsState;
use super::access::{Body, Client};
use super::refusal::Refused;
use super::shapes::{Members, member, raw};
use crate::config::Jobs;
use crate::http::Failure;
use crate::services::jobs::append::ScheduleAnswer;
use crate::services::jobs::command::{Recurrence, ScheduleCommand};
use crate::services::jobs::decide::{
    NAME_BYTES_MAX, PRIORITY_DEFAULT, SCHEDULES_MAX, Scope, SubmissionFields, UTC, check_cron,
    check_submission, check_text, time_zone,
};
use crate::services::jobs::read::{self, Schedule};

fn schedule_json(schedule: &Schedule) -> Members {
    Members::from([
        ("name", member(&schedule.name)),
        ("cron", member(&schedule.cron)),
        ("timezone", member(schedule.timezone.as_deref().unwrap_or(UTC))),
        ("type", member(&schedule.job_type)),
        ("priority", member(&schedule.priority)),
        ("max_attempts", member(&schedule.attempts_max)),
        ("tags", member(&schedule.tags.as_deref().and_then(raw))),
        ("metadata", member(&schedule.metadata.as_deref().and_then(raw))),
        ("since", member(&schedule.since)),
    ])
}

pub(super) async fn list(State(state): State<JobsState>, client: Client) -> Result<Json<Members>, Failure> {
    let answer = async {
        client.require(Scope::Read)?;
        let (schedules, _) = read::schedules(&state.parts().pools.session, true).await?;
        let schedules: Vec<Members> = schedules.iter().map(schedule_json).collect();
        Ok(Members::from([("schedules", member(&schedules))]))
    };
    state.json(answer).await
}

/// The body of a schedule.
#[derive(Debug, Deserialize)]
pub(super) struct ScheduleBody {
    #[serde(default)]
    name: String,
    #[serde(default)]
    cron: String,
    /// IANA name of the time zone of `cron`; UTC without it.
    timezone: Option<String>,
    #[serde(default)]
    r#type: String,
    priority: Option<i64>,
    max_attempts: Option<i64>,
    tags: Option<Value>,
    metadata: Option<Value>,
}

impl ScheduleBody {
    /// The schedule that this actor sets at `now`.
    pub(super) fn checked(
        self,
        settings: &Jobs,
        actor: String,
        now: DateTime<Utc>,
    ) -> Result<Recurrence, Refused> {
        check_text("name", &self.name, NAME_BYTES_MAX)?;
        let zone = time_zone(self.timezone.as_deref());
        let zone = zone.map_err(|error| Refused::field("timezone", format!("is {error}")))?;
        let checked = check_cron(&self.cron, zone, now);
        checked.map_err(|error| Refused::field("cron", format!("is {error}")))?;
        let zone = zone.name();
        let fields = SubmissionFields {
            job_type: &self.r#type,
            source_hash: None,
            source_path: None,
            source_size: None,
            priority: self.priority.unwrap_or(i64::from(PRIORITY_DEFAULT)),
            attempts_max: self.max_attempts.unwrap_or(i64::from(settings.attempts_max.get())),
            idempotency_key: None,
            tags: self.tags.as_ref(),
            metadata: self.metadata.as_ref(),
            depends_on: &[],
        };
        let numbers = check_submission(&fields)?;
        Ok(Recurrence {
            priority: numbers.priority,
            attempts_max: numbers.attempts_max,
            name: self.name,
            cron: self.cron,
            timezone: (zone != UTC).then(|| zone.to_owned()),
            job_type: self.r#type,
            tags: self.tags.filter(|tags| !tags.is_null()),
            metadata: self.metadata.filter(|metadata| !metadata.is_null()),
            actor,
        })
    }
}

pub(super) async fn set(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<ScheduleBody>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Manage)?;
        let parts = state.parts();
        let set = body.checked(&parts.settings, client.actor.label(), parts.clock.now())?;
        match parts.schedules.append(ScheduleCommand::Set(Box::new(set))).await? {
            ScheduleAnswer::Full => {
                let why = format!("there are {SCHEDULES_MAX} schedules, which is the most");
                Err(Refused::coded(StatusCode::CONFLICT, "schedules_full", why))
            }
            ScheduleAnswer::Changed | ScheduleAnswer::Unknown => Ok(json!({ "status": "set" })),
        }
    };
    state.json(answer).await
}

pub(super) async fn remove(
    State(state): State<JobsState>,
    client: Client,
    Path(name): Path<String>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Manage)?;
        let remove = ScheduleCommand::Remove { name, actor: client.actor.label() };
        match state.parts().schedules.append(remove).await? {
            ScheduleAnswer::Unknown => Err(Refused::not_found("schedule")),
            ScheduleAnswer::Changed | ScheduleAnswer::Full => Ok(json!({ "status": "removed" })),
        }
    };
    state.json(answer).await
}
