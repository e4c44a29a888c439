//! Which client sends a request, and whether it may do what it asks for.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use super::BlossomState;
use super::refusal::Refused;
use crate::http::{is_of_another_origin, is_of_another_site};
use crate::services::blossom::decide::authorization::{About, Demand, Token, Verb};

/// A client that may do what it asks for.
#[derive(Debug, Clone)]
pub(super) enum Client {
    /// It has shown a valid token.
    Key(Token),
    /// It has shown none, and needs none.
    Anyone,
}

impl Client {
    /// Its key.
    pub(super) fn pubkey(&self) -> Option<[u8; 32]> {
        self.token().map(|token| *token.pubkey())
    }

    /// Its token.
    pub(super) fn token(&self) -> Option<&Token> {
        match self {
            Self::Key(token) => Some(token),
            Self::Anyone => None,
        }
    }

    /// As whom journals name it.
    pub(super) fn actor(&self) -> String {
        self.pubkey().map_or_else(|| "anonymous".to_owned(), |key| format!("key:{}", hex::encode(key)))
    }
}

/// Whether an endpoint needs a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// It changes something: a valid token of a key that may upload, unless `services.blossom.compat_unauthenticated` says
    /// otherwise.
    Change,
    /// It reads, and needs a valid token.
    Read,
    /// It reads, and needs none. A token that is shown has to be valid nevertheless.
    Open,
}

impl BlossomState {
    /// Checks the token of a request for `verb` about a blob.
    ///
    /// # Errors
    /// 401 without a valid token; 403 for a key that may not, and for pages of other sites where they may not.
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        need: Need,
        verb: Verb,
        about: About,
    ) -> Result<Client, Refused> {
        if need != Need::Open {
            self.refuse_other_pages(headers)?;
        }
        let Some(header) = headers.get(AUTHORIZATION) else {
            return if self.needs_token(need) { Err(Refused::no_token()) } else { Ok(Client::Anyone) };
        };
        let token = header.to_str().map_err(|_| Refused::bad_token("the token is not text"))?;
        let token = Token::parse(token).map_err(Refused::from)?;
        self.check(&token, verb, about)?;
        let allowed = &self.0.allowed;
        if need == Need::Change && !allowed.is_empty() && !allowed.contains(token.pubkey()) {
            return Err(Refused::not_allowed());
        }
        Ok(Client::Key(token))
    }

    /// Refuses what a page of another site makes a browser send to a listener that is for this machine alone. Everything that reaches
    /// it comes from this machine, and any page can sign a token, of a key that it has just made: only the browser tells them apart.
    ///
    /// # Errors
    /// 403, while `services.blossom.public_url` has no value and the listener is on loopback.
    pub(super) fn refuse_other_pages(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let is_for_others =
            self.settings().public_url.is_some() || !self.0.address.ip().to_canonical().is_loopback();
        if !is_for_others && (is_of_another_site(headers) || is_of_another_origin(headers)) {
            return Err(Refused::other_site());
        }
        Ok(())
    }

    /// Checks what a token allows, again when the blob is known.
    ///
    /// # Errors
    /// 401.
    pub(super) fn check(&self, token: &Token, verb: Verb, about: About) -> Result<(), Refused> {
        let demand = Demand { verb, about, hosts: &self.0.hosts, now: self.now_s() };
        token.check(demand).map_err(Refused::from)
    }

    fn needs_token(&self, need: Need) -> bool {
        match need {
            Need::Change => !self.settings().compat_unauthenticated || !self.0.allowed.is_empty(),
            Need::Read => true,
            Need::Open => false,
        }
    }
}
