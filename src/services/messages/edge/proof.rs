//! `GET /v1/challenge` and `POST /v1/tokens`: issue a token that is valid for 24 hours for a proof of the
//! client's identity.

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http_body_util::Limited;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::admission::{Proof, no_key_proofs, random_base64url};
use super::frame::ErrorCode;
use super::refusal::Refusal;
use super::requests::{Identity, check_name, check_wayfarer};
use super::{Listener, MessagesState};
use crate::base::RelayUrl;
use crate::http::{ClientAddress, Failure, RequestContext, StrictQuery};
use crate::services::messages::append::{TokenAnswer, challenge_key};
use crate::services::messages::command::{TokenCommand, TokenProof};
use crate::services::messages::decide::{ChallengeKey, ChallengeScope, token_sha256};
use crate::services::messages::event::Generation;
use crate::store::Error;

/// Lifetime of a token that was issued for a proof, in seconds.
const TOKEN_LIFE_S: i64 = 86_400;

/// The claim for which a challenge is requested.
#[derive(Debug, Deserialize)]
pub(super) struct ChallengeQuery {
    #[serde(default)]
    wayfarer_id: String,
    #[serde(default)]
    device_id: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ProofBody {
    #[serde(default)]
    wayfarer_id: String,
    #[serde(default)]
    device_id: String,
    challenge: String,
    public_key_b64: Option<String>,
    signature_b64: Option<String>,
    event: Option<Box<RawValue>>,
}

/// Longest body with a proof, in bytes.
const PROOF_BYTES_MAX: usize = 16 * 1024;

/// A JSON body of at most [`PROOF_BYTES_MAX`] bytes, because its sender has not proven an identity yet.
pub(super) struct SmallJson<T>(T);

impl<T, S> FromRequest<S> for SmallJson<T>
where
    Json<T>: FromRequest<S>,
    S: Send + Sync,
{
    type Rejection = <Json<T> as FromRequest<S>>::Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let bounded = request.map(|body| Body::new(Limited::new(body, PROOF_BYTES_MAX)));
        Json::from_request(bounded, state).await.map(|Json(value)| Self(value))
    }
}

/// Checks that the claimed names are valid.
fn check_identity(wayfarer_id: String, device: String) -> Result<Identity, Refusal> {
    check_wayfarer("wayfarer_id", &wayfarer_id, Generation::Two)?;
    check_name("device_id", &device, ErrorCode::InvalidPayload)?;
    Ok(Identity { wayfarer_id, device, generation: Generation::Two })
}

fn challenge_for<'a>(identity: &'a Identity, relay: &'a RelayUrl) -> ChallengeScope<'a> {
    ChallengeScope { relay_id: relay.as_str(), wayfarer_id: &identity.wayfarer_id, device: &identity.device }
}

impl MessagesState {
    /// The key of challenges that all processes of the database share.
    async fn challenge_key(&self) -> Result<ChallengeKey, Error> {
        let read = challenge_key(&self.parts().pools, rand::random());
        self.0.challenge_key.try_get_with((), read).await.map_err(|error| Error::clone(&error))
    }

    /// Unix seconds of the database's clock, so that all processes agree on the expiry of challenges.
    fn now_s(&self) -> i64 {
        self.parts().database_clock.latest_us() / 1_000_000
    }
}

pub(super) async fn challenge(
    State(listener): State<Listener>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    StrictQuery(ChallengeQuery { wayfarer_id, device_id }): StrictQuery<ChallengeQuery>,
) -> Result<Json<Value>, Failure> {
    listener.check_origin(&headers)?;
    let state = &listener.state;
    let make = async {
        let relay = listener.proof_relay(&headers, context.client()).ok_or_else(no_key_proofs)?;
        let identity = check_identity(wayfarer_id, device_id)?;
        let key = state.challenge_key().await?;
        let challenge = challenge_for(&identity, &relay).make(&key, rand::random(), state.now_s());
        Ok::<_, Refusal>(json!({ "challenge": challenge, "relay_id": relay }))
    };
    make.await.map(Json).map_err(|refusal| state.refuse(refusal))
}

pub(super) async fn prove(
    State(listener): State<Listener>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    SmallJson(body): SmallJson<ProofBody>,
) -> Result<Response, Failure> {
    listener.check_origin(&headers)?;
    let state = &listener.state;
    let relay = listener.proof_relay(&headers, context.client()).ok_or_else(no_key_proofs);
    let issued = async { state.token_for_proof(&relay?, context.client(), body).await };
    let answer = issued.await.map_err(|refusal| state.refuse(refusal))?;
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

impl MessagesState {
    async fn token_for_proof(
        &self,
        relay: &RelayUrl,
        client: ClientAddress,
        body: ProofBody,
    ) -> Result<Value, Refusal> {
        let identity = check_identity(body.wayfarer_id, body.device_id)?;
        if let Some(exceeded) = self.0.limits.proofs_from(client) {
            return Err(exceeded.into());
        }
        let key = self.challenge_key().await?;
        let checked = challenge_for(&identity, relay).check(&key, &body.challenge, self.now_s());
        checked.map_err(|why| Refusal::request(ErrorCode::AuthFailed, "challenge", why.to_string()))?;
        let proof = match (&body.event, &body.public_key_b64, &body.signature_b64) {
            (Some(event), _, _) => Proof::Nostr { event: event.get() },
            (None, Some(public_key_b64), Some(signature_b64)) => Proof::Key { public_key_b64, signature_b64 },
            _ => {
                let why = "public_key_b64 and signature_b64, or event, are required";
                return Err(Refusal::request(ErrorCode::InvalidPayload, "signature_b64", why));
            }
        };
        self.prove(&identity, relay, &body.challenge, &proof)?;
        // Counted after the proof, so that other clients cannot use up the wayfarer's rate.
        if let Some(exceeded) = self.0.limits.proofs_of(&identity.wayfarer_id) {
            return Err(exceeded.into());
        }
        let token = self.token(&identity, &body.challenge).await?;
        Ok(json!({ "token": token, "wayfarer_id": identity.wayfarer_id, "lives_s": TOKEN_LIFE_S }))
    }

    /// Issues a token for an answered challenge. A challenge is good for one token across all processes: its
    /// hash has a unique key.
    async fn token(&self, identity: &Identity, challenge: &str) -> Result<String, Refusal> {
        let token = format!("qm_{}", random_base64url());
        let limit = self.parts().settings.tokens_per_wayfarer_max.get();
        let command = TokenCommand::Create {
            token_sha256: token_sha256(&token),
            wayfarer_id: identity.wayfarer_id.clone(),
            device: (!identity.device.is_empty()).then(|| identity.device.clone()),
            label: "proven by signature".to_owned(),
            lifetime_s: Some(TOKEN_LIFE_S),
            proof: Some(TokenProof {
                challenge_sha256: token_sha256(challenge),
                tokens_max: i32::try_from(limit).unwrap_or(i32::MAX),
            }),
        };
        match self.parts().tokens.append(command).await? {
            TokenAnswer::Recorded => Ok(token),
            TokenAnswer::TooManyTokens => {
                let message = format!(
                    "this wayfarer_id has {limit} tokens; at most {limit} are allowed. Each ends after a day, or when the \
                     operator revokes it"
                );
                let (limit, value) = (limit.into(), u64::from(limit) + 1);
                Err(Refusal::limit_exceeded(ErrorCode::QuotaExceeded, "tokens", message, limit, value))
            }
            TokenAnswer::ChallengeUsed | TokenAnswer::Unknown => {
                let why = "the challenge has already been used: request a new one";
                Err(Refusal::request(ErrorCode::AuthFailed, "challenge", why))
            }
        }
    }
}
