//! The audit, for administrators: what people and programs did.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::JobsState;
use super::access::Client;
use super::limits::{PAGE_DEFAULT, PAGE_MAX};
use super::refusal::Refused;
use crate::http::Failure;
use crate::services::jobs::decide::Scope;
use crate::services::jobs::read::{self, AuditEntry};

fn audit_json(entry: &AuditEntry) -> Value {
    json!({
        "position": entry.position, "at": entry.recorded_at, "actor": entry.actor, "action": entry.action,
        "subject": entry.subject, "detail": entry.detail,
    })
}

/// The query of the audit.
#[derive(Debug, Deserialize)]
pub(super) struct AuditQuery {
    before: Option<i64>,
    limit: Option<i32>,
}

pub(super) async fn audit(
    State(state): State<JobsState>,
    client: Client,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Admin)?;
        let limit = query.limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(Refused::field("limit", format!("must be between 1 and {PAGE_MAX}")));
        }
        let entries = read::audit(&state.parts().pools.session, query.before, limit.into()).await?;
        let is_full = i32::try_from(entries.len()).is_ok_and(|count| count == limit);
        let next = entries.last().filter(|_| is_full).map(|entry| entry.position);
        Ok(json!({ "entries": entries.iter().map(audit_json).collect::<Vec<_>>(), "next_before": next }))
    };
    state.json(answer).await
}
