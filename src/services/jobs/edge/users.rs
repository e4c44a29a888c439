//! People who log in and their sessions, for administrators.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use uuid::Uuid;

use super::JobsState;
use super::access::Client;
use super::refusal::Refused;
use super::shapes::list_or_null;
use crate::http::Failure;
use crate::services::jobs::append::UserAnswer;
use crate::services::jobs::command::UserCommand;
use crate::services::jobs::decide::Scope;
use crate::services::jobs::read::{self, SessionRecord, UserView};

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

pub(super) async fn users(State(state): State<JobsState>, client: Client) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Admin)?;
        let users = read::users(&state.parts().pools.session).await?;
        Ok(list_or_null(&users.iter().map(user_json).collect::<Vec<_>>()))
    };
    state.json(answer).await
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
    state.json(answer).await
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
    state.json(answer).await
}
