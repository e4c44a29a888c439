//! People who log in, their sessions, and the audit, for administrators.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::JobsState;
use super::access::Client;
use super::limits::{PAGE_DEFAULT, PAGE_MAX};
use super::refusal::Refused;
use super::shapes::list_or_null;
use crate::http::Failure;
use crate::services::jobs::append::UserAnswer;
use crate::services::jobs::command::UserCommand;
use crate::services::jobs::decide::Scope;
use crate::services::jobs::read::{self, AuditEntry, SessionRecord, UserView};

fn user_json(user: &UserView) -> Value {
    json!({
        "id": user.subject, "issuer": user.issuer, "email": user.email, "name": user.name, "groups": user.groups,
        "is_admin": user.is_admin, "created_at": user.created_at, "last_login": user.last_login, "sessions": user.sessions,
    })
}

fn session_json(session: &SessionRecord, own: Option<Uuid>) -> Value {
    json!({
        "id": session.session, "user": session.label, "subject": session.subject, "issuer": session.issuer,
        "email": session.email, "name": session.name, "groups": session.groups, "is_admin": session.is_admin,
        "created_at": session.created_at, "expires_at": session.expires_at, "is_own": own == Some(session.session),
    })
}

fn audit_json(entry: &AuditEntry) -> Value {
    json!({
        "position": entry.position, "at": entry.recorded_at, "actor": entry.actor, "action": entry.action,
        "subject": entry.subject, "detail": entry.detail,
    })
}

pub(super) async fn users(State(state): State<JobsState>, client: Client) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Admin)?;
        let users = read::users(&state.parts().pools.session).await?;
        Ok(list_or_null(&users.iter().map(user_json).collect::<Vec<_>>()))
    };
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
}

pub(super) async fn sessions(State(state): State<JobsState>, client: Client) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Admin)?;
        let own = client.session.as_ref().map(|own| own.session);
        let sessions = read::sessions(&state.parts().pools.session).await?;
        Ok(
            json!({ "sessions": sessions.iter().map(|session| session_json(session, own)).collect::<Vec<_>>() }),
        )
    };
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
}

pub(super) async fn revoke_session(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Admin)?;
        let session = id.parse().map_err(|_| Refused::field("id", "is not the id of a session"))?;
        let revoke = UserCommand::Revoke { session, actor: client.actor.label() };
        match state.parts().users.append(revoke).await? {
            UserAnswer::Unknown => Err(Refused::not_found("session")),
            UserAnswer::Done => {
                state.forget_credentials();
                Ok(json!({ "status": "revoked" }))
            }
        }
    };
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
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
    answer.await.map(Json).map_err(|refused: Refused| state.refuse(refused))
}
