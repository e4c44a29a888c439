//! API tokens and secrets of workers, for administrators.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::JobsState;
use super::access::{Body, Client, draw, draw_token, hash};
use super::refusal::Refused;
use super::shapes::{list_or_null, token_json};
use super::workers::profile;
use crate::http::Failure;
use crate::services::jobs::append::CredentialAnswer;
use crate::services::jobs::command::{CredentialCommand, NewCredential};
use crate::services::jobs::decide::{NAME_BYTES_MAX, Scope, TOKEN_DAYS_MAX, check_text};
use crate::services::jobs::event::WorkerEvent;
use crate::services::jobs::read;

pub(super) async fn tokens(State(state): State<JobsState>, client: Client) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Admin)?;
        let tokens = read::tokens(&state.parts().pools.session).await?;
        let tokens: Vec<Value> = tokens.iter().map(token_json).collect();
        Ok(list_or_null(&tokens))
    };
    state.json(answer).await
}

/// The body of a new token.
#[derive(Debug, Deserialize)]
pub(super) struct TokenBody {
    #[serde(default)]
    name: String,
    #[serde(default)]
    is_admin: bool,
    scopes: Option<Vec<String>>,
    /// Days until it expires; 0 for never.
    expires_in: Option<i64>,
}

/// What a new token is.
#[derive(Debug)]
pub(super) struct TokenFields {
    pub(super) name: String,
    pub(super) is_admin: bool,
    /// Words of scopes; none for all.
    pub(super) scopes: Vec<String>,
    /// Days until it expires; 0 for never.
    pub(super) days: i64,
}

impl TokenFields {
    pub(super) fn check(&self) -> Result<(), Refused> {
        check_text("name", &self.name, NAME_BYTES_MAX)?;
        if let Some(wrong) = self.scopes.iter().find(|word| Scope::parse(word).is_none()) {
            let known = Scope::GRANTABLE.map(Scope::as_str).join(", ");
            return Err(Refused::field("scopes", format!("has `{wrong}`, which is none of {known}")));
        }
        if !(0..=TOKEN_DAYS_MAX).contains(&self.days) {
            return Err(Refused::field("expires_in", format!("must be between 0 and {TOKEN_DAYS_MAX} days")));
        }
        Ok(())
    }
}

impl From<TokenBody> for TokenFields {
    fn from(body: TokenBody) -> Self {
        Self {
            name: body.name,
            is_admin: body.is_admin,
            scopes: body.scopes.unwrap_or_default(),
            days: body.expires_in.unwrap_or(0),
        }
    }
}

pub(super) async fn create_token(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<TokenBody>,
) -> Result<Response, Failure> {
    let answer = async {
        client.require(Scope::Admin)?;
        let name = body.name.clone();
        let (id, token) = state.new_token(&client, body.into()).await?;
        let body = json!({ "id": id, "token": token, "name": name });
        Ok((StatusCode::CREATED, Json(body)).into_response())
    };
    state.answer(answer).await
}

pub(super) async fn delete_token(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Admin)?;
        state.revoke_token(&client, &id).await?;
        Ok(json!({ "status": "deleted" }))
    };
    state.json(answer).await
}

/// The body of a new worker.
#[derive(Debug, Deserialize)]
pub(super) struct WorkerBody {
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    r#type: String,
}

impl JobsState {
    /// Commits a new credential; returns its id.
    async fn credential_id(&self, command: CredentialCommand) -> Result<i64, Refused> {
        match self.parts().credentials.append(command).await? {
            CredentialAnswer::Created { id } => {
                self.forget_credentials();
                Ok(id)
            }
            CredentialAnswer::Revoked | CredentialAnswer::Unknown => Err(Refused::Contended),
        }
    }

    /// Creates an API token. Returns its id and its text, which is not stored.
    pub(super) async fn new_token(
        &self,
        client: &Client,
        fields: TokenFields,
    ) -> Result<(i64, String), Refused> {
        fields.check()?;
        let token = draw_token();
        let new = NewCredential {
            sha256: hash(&token),
            name: fields.name,
            worker: None,
            is_admin: fields.is_admin,
            scopes: fields.scopes,
            lifetime_s: (fields.days > 0).then_some(fields.days * 86_400),
            actor: client.actor.label(),
        };
        let id = self.credential_id(CredentialCommand::Create(Box::new(new))).await?;
        Ok((id, token))
    }

    /// Revokes the API token with this id.
    pub(super) async fn revoke_token(&self, client: &Client, id: &str) -> Result<(), Refused> {
        let id = id.parse().map_err(|_| Refused::field("id", "is not the id of a token"))?;
        let revoke = CredentialCommand::RevokeToken { id, actor: client.actor.label() };
        match self.parts().credentials.append(revoke).await? {
            CredentialAnswer::Unknown => Err(Refused::not_found("token")),
            CredentialAnswer::Created { .. } | CredentialAnswer::Revoked => {
                self.forget_credentials();
                Ok(())
            }
        }
    }

    /// Gives a worker a new secret; its old ones are refused from then on.
    async fn new_secret(&self, client: &Client, worker: &str) -> Result<String, Refused> {
        let secret = draw("bfw_");
        let new = NewCredential {
            sha256: hash(&secret),
            name: worker.to_owned(),
            worker: Some(worker.to_owned()),
            is_admin: false,
            scopes: vec![Scope::Work.as_str().to_owned()],
            lifetime_s: None,
            actor: client.actor.label(),
        };
        self.credential_id(CredentialCommand::ReplaceSecret(Box::new(new))).await?;
        Ok(secret)
    }

    /// Creates a worker. Returns its secret, which is not stored.
    pub(super) async fn new_worker(
        &self,
        client: &Client,
        id: &str,
        name: &str,
        job_type: &str,
    ) -> Result<String, Refused> {
        if id.is_empty() || job_type.is_empty() {
            return Err(Refused::field("id", "and type are required"));
        }
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        let profile = profile(job_type.to_owned(), name, None)?;
        self.worker_event(client, id, WorkerEvent::Created, Some(profile)).await?;
        self.new_secret(client, id).await
    }

    /// Gives a worker that exists a new secret.
    pub(super) async fn regenerated_secret(&self, client: &Client, id: &str) -> Result<String, Refused> {
        if read::worker_view(&self.parts().pools.session, id).await?.is_none() {
            return Err(Refused::not_found("worker"));
        }
        self.new_secret(client, id).await
    }
}

pub(super) async fn create_worker(
    State(state): State<JobsState>,
    client: Client,
    Body(body): Body<WorkerBody>,
) -> Result<Response, Failure> {
    let answer = async {
        client.require(Scope::Admin)?;
        let secret = state.new_worker(&client, &body.id, &body.name, &body.r#type).await?;
        let body = json!({ "id": body.id, "name": body.name, "type": body.r#type, "secret": secret });
        Ok((StatusCode::CREATED, Json(body)).into_response())
    };
    state.answer(answer).await
}

pub(super) async fn regenerate_secret(
    State(state): State<JobsState>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let answer = async {
        client.require(Scope::Admin)?;
        let secret = state.regenerated_secret(&client, &id).await?;
        Ok(json!({ "id": id, "secret": secret }))
    };
    state.json(answer).await
}
