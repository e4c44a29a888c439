//! `OpenID` Connect: sends a browser to a provider, and learns from the code with which it returns who the person
//! is.
//!
//! Core 1.0 and Discovery 1.0, by the authorization code flow with PKCE (RFC 7636, S256), state and nonce, and
//! with the issuer of the response (RFC 9207). The library verifies signature, issuer, audience, expiry and nonce
//! of ID tokens; here are the requests, the cache of what the provider says of itself, and the choice of claims.
//!
//! The operator names the issuer, so it may have a private address. The endpoints that its discovery document
//! names are trusted as much only within its origin, and are refused without encryption if the issuer has it.
//!
//! Limits: 5 s and 256 KiB for each request, of which a login has at most five; one discovery document and key
//! set, kept for an hour, and asked for again at most once a minute for a key that is not in it.

mod claims;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::future::Cache;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreClaimName, CoreClaimType, CoreClientAuthMethod,
    CoreErrorResponseType, CoreGenderClaim, CoreGrantType, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm, CoreResponseMode, CoreResponseType,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreSubjectIdentifierType,
    CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalProviderMetadata, AuthType, AuthenticationFlow, AuthorizationCode, ClaimsVerificationError,
    Client, ClientId, ClientSecret, CsrfToken, DiscoveryError, EmptyExtraTokenFields, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, IdTokenFields, IssuerUrl, Nonce, OAuth2TokenResponse as _,
    PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata, RedirectUrl, RequestTokenError, Scope,
    SignatureVerificationError, StandardErrorResponse, StandardTokenResponse, TokenResponse as _,
    UserInfoError,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use url::Url;

use super::remote_text::sanitize;
use super::{Egress, FetchError};
use crate::base::Secret;
use claims::OtherClaims;
use wire::Wire;

/// How long a discovery document and a key set are used.
const DOCUMENT_KEPT: Duration = Duration::from_hours(1);

/// Least time between two requests for keys that a token made necessary: anyone can send a browser here.
const RENEWAL_PAUSE: Duration = Duration::from_mins(1);

/// The signatures that are accepted: those with public keys. A provider that announces others, such as HMAC by the
/// client's secret, is not believed with them.
const SIGNATURES: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// What RFC 9207 adds to a discovery document.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Announced {
    #[serde(default)]
    authorization_response_iss_parameter_supported: Option<bool>,
}

impl AdditionalProviderMetadata for Announced {}

type Document = ProviderMetadata<
    Announced,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

type Tokens = StandardTokenResponse<
    IdTokenFields<
        OtherClaims,
        EmptyExtraTokenFields,
        CoreGenderClaim,
        CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    >,
    CoreTokenType,
>;

type RelyingParty = Client<
    OtherClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Tokens,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// Which provider, and how this program is known to it.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// URL of the provider, exactly as its discovery document states it.
    pub issuer: String,
    /// Id of this program at the provider.
    pub client_id: String,
    /// Secret of this program; `None` for a public client, which PKCE alone protects.
    pub secret: Option<Secret>,
    /// Where the provider sends a browser back to.
    pub redirect_url: String,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim with the groups, or a JSON pointer to it.
    pub groups_claim: String,
}

/// A browser's way to the provider, and what to keep until it returns.
#[derive(Debug, Clone)]
pub struct Departure {
    /// Where to send the browser.
    pub url: Url,
    /// Comes back with the browser.
    pub state: Secret,
    /// Comes back in the ID token.
    pub nonce: Secret,
    /// Proves that the code is redeemed by who asked for it (RFC 7636).
    pub verifier: Secret,
}

/// What a browser returned with, and what was kept since its departure.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The code.
    pub code: &'a str,
    /// The parameter `iss`.
    pub issuer: Option<&'a str>,
    /// As in [`Departure`].
    pub nonce: Secret,
    /// As in [`Departure`].
    pub verifier: Secret,
}

/// Who a person is, as the provider says. Texts have at most 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// URL of the provider.
    pub issuer: String,
    /// Id of the person at the provider, which does not change.
    pub subject: String,
    /// Name for people, which a person may be able to choose.
    pub name: Option<String>,
    /// Email address, if the provider has verified it.
    pub email: Option<String>,
    /// Groups.
    pub groups: Vec<String>,
}

/// Why a login failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoginError {
    /// The provider cannot be reached.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(FetchError),
    /// The provider answers with what it must not, or does not know this program.
    #[error("the provider does not work as expected: {0}")]
    Provider(String),
    /// The browser's code, or what it was redeemed for, is not valid.
    #[error("the login is not valid: {0}")]
    Refused(String),
}

impl LoginError {
    #[expect(clippy::needless_pass_by_value, reason = "`map_err` passes errors by value")]
    fn provider(why: impl ToString) -> Self {
        Self::Provider(sanitize(&why.to_string()))
    }

    #[expect(clippy::needless_pass_by_value, reason = "`map_err` passes errors by value")]
    fn refused(why: impl ToString) -> Self {
        Self::Refused(sanitize(&why.to_string()))
    }
}

/// A provider, as this program knows it. Clones share it.
#[derive(Debug, Clone)]
pub struct Provider(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: ProviderSettings,
    wire: Wire,
    documents: Cache<(), Arc<Document>>,
    renewed: Mutex<Option<Instant>>,
}

impl Provider {
    /// A provider that was not asked yet: it need not be there before the first login.
    ///
    /// # Errors
    /// [`LoginError::Provider`]: the issuer or the redirect URL is no URL.
    pub fn new(settings: ProviderSettings, egress: Egress) -> Result<Self, LoginError> {
        let issuer = Url::parse(&settings.issuer).map_err(LoginError::provider)?;
        RedirectUrl::new(settings.redirect_url.clone()).map_err(LoginError::provider)?;
        let documents = Cache::builder().max_capacity(1).time_to_live(DOCUMENT_KEPT).build();
        let wire = Wire { egress, issuer };
        Ok(Self(Arc::new(Inner { settings, wire, documents, renewed: Mutex::default() })))
    }

    /// A way to the provider for a browser.
    ///
    /// # Errors
    /// [`LoginError::Unreachable`], [`LoginError::Provider`].
    pub async fn depart(&self) -> Result<Departure, LoginError> {
        let document = self.document().await?;
        let client = self.client(&document)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let request = client
            .authorize_url(
                AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .set_pkce_challenge(challenge)
            .add_scopes(self.0.settings.scopes.iter().cloned().map(Scope::new));
        let (url, state, nonce) = request.url();
        Ok(Departure {
            url,
            state: Secret::new(state.secret().as_str()),
            nonce: Secret::new(nonce.secret().as_str()),
            verifier: Secret::new(verifier.secret().as_str()),
        })
    }

    /// Redeems the code of a browser that returned.
    ///
    /// # Errors
    /// Any [`LoginError`].
    pub async fn arrive(&self, arrival: Arrival<'_>) -> Result<Person, LoginError> {
        let document = self.document().await?;
        self.check_issuer(&document, arrival.issuer)?;
        let client = self.client(&document)?;
        let exchange = client.exchange_code(AuthorizationCode::new(arrival.code.to_owned()));
        let tokens = exchange
            .map_err(LoginError::provider)?
            .set_pkce_verifier(PkceCodeVerifier::new(arrival.verifier.expose().to_owned()))
            .request_async(&self.0.wire)
            .await
            .map_err(token_error)?;
        let id_token = tokens.id_token().ok_or_else(|| LoginError::provider("it gives no ID token"))?;
        let nonce = Nonce::new(arrival.nonce.expose().to_owned());
        let mut checked = id_token.claims(&verifier(&client), &nonce).cloned();
        if let Err(ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey)) =
            checked
            && self.may_renew()
        {
            self.0.documents.invalidate(&()).await;
            let document = self.document().await?;
            let client = self.client(&document)?;
            checked = id_token.claims(&verifier(&client), &nonce).cloned();
        }
        let claims = checked.map_err(|error| LoginError::refused(with_source(&error)))?;
        let mut person = claims::of_id_token(&claims, &self.0.settings)?;
        let is_complete = person.groups.is_some() && person.email.is_some();
        if !is_complete && client.user_info_url().is_some() {
            let request = client.user_info(tokens.access_token().clone(), Some(claims.subject().clone()));
            let request = request.map_err(LoginError::provider)?;
            let told = request.request_async::<OtherClaims, _, CoreGenderClaim>(&self.0.wire).await;
            person.complete(&told.map_err(|error| user_info_error(&error))?, &self.0.settings);
        }
        Ok(person.done())
    }

    /// What the provider says of itself, and its keys. Requests at the same time share one.
    async fn document(&self) -> Result<Arc<Document>, LoginError> {
        let read = async {
            let issuer = IssuerUrl::new(self.0.settings.issuer.clone()).map_err(LoginError::provider)?;
            let document =
                Document::discover_async(issuer, &self.0.wire).await.map_err(|error| match error {
                    DiscoveryError::Request(error) => LoginError::Unreachable(error),
                    other => LoginError::provider(other),
                })?;
            self.0
                .wire
                .check_scheme(document.authorization_endpoint().url())
                .map_err(LoginError::provider)?;
            Ok(Arc::new(document))
        };
        self.0.documents.try_get_with((), read).await.map_err(|error: Arc<LoginError>| (*error).clone())
    }

    fn client(&self, document: &Document) -> Result<RelyingParty, LoginError> {
        let settings = &self.0.settings;
        let secret = settings.secret.as_ref().map(|secret| ClientSecret::new(secret.expose().to_owned()));
        let redirect = RedirectUrl::new(settings.redirect_url.clone()).map_err(LoginError::provider)?;
        // Without the list the method is `client_secret_basic` (Discovery, 3).
        let methods = document.token_endpoint_auth_methods_supported();
        let has = |method| methods.is_none_or(|methods| methods.contains(&method));
        let is_basic = has(CoreClientAuthMethod::ClientSecretBasic);
        let client_id = ClientId::new(settings.client_id.clone());
        Ok(RelyingParty::from_provider_metadata(document.clone(), client_id, secret)
            .set_auth_type(if is_basic { AuthType::BasicAuth } else { AuthType::RequestBody })
            .set_redirect_uri(redirect))
    }

    /// RFC 9207, 2.4: a browser that another provider sends here is refused before its code is redeemed.
    fn check_issuer(&self, document: &Document, told: Option<&str>) -> Result<(), LoginError> {
        let announced = document.additional_metadata().authorization_response_iss_parameter_supported;
        match told {
            Some(issuer) if issuer == self.0.settings.issuer => Ok(()),
            None if announced != Some(true) => Ok(()),
            _ => Err(LoginError::refused("the response is not from the provider (`iss`)")),
        }
    }

    /// Whether the keys may be asked for again because of a token.
    fn may_renew(&self) -> bool {
        let mut renewed = self.0.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        if renewed.is_some_and(|last| last.elapsed() < RENEWAL_PAUSE) {
            return false;
        }
        *renewed = Some(Instant::now());
        true
    }
}

/// Verifies ID tokens for this client.
fn verifier(client: &RelyingParty) -> openidconnect::IdTokenVerifier<'_, CoreJsonWebKey> {
    client.id_token_verifier().set_allowed_algs(SIGNATURES)
}

/// An error and its cause: the library's text for a wrong signature has the reason in the cause.
fn with_source(error: &ClaimsVerificationError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn token_error(
    error: RequestTokenError<FetchError, StandardErrorResponse<CoreErrorResponseType>>,
) -> LoginError {
    match error {
        RequestTokenError::Request(error) => LoginError::Unreachable(error),
        RequestTokenError::ServerResponse(told) if *told.error() == CoreErrorResponseType::InvalidGrant => {
            LoginError::refused("the provider refuses the code")
        }
        RequestTokenError::ServerResponse(told) => LoginError::provider(told),
        // Not shown: the answer may contain tokens.
        RequestTokenError::Parse(..) => LoginError::provider("its answer with tokens cannot be read"),
        RequestTokenError::Other(why) => LoginError::provider(why),
    }
}

fn user_info_error(error: &UserInfoError<FetchError>) -> LoginError {
    match error {
        UserInfoError::Request(error) => LoginError::Unreachable(error.clone()),
        UserInfoError::ClaimsVerification(error) => LoginError::refused(with_source(error)),
        // Not shown: the answer is about the person.
        UserInfoError::Response(status, ..) => {
            LoginError::provider(format_args!("userinfo is answered with {status}"))
        }
        _ => LoginError::provider("its answer about the person cannot be read"),
    }
}
