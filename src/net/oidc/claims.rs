//! What is taken from the claims of an ID token, and from the userinfo endpoint where the token lacks it.

use openidconnect::core::CoreGenderClaim;
use openidconnect::{AdditionalClaims, IdTokenClaims, UserInfoClaims};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{LoginError, Person, ProviderSettings};

/// Longest subject (Core, 2), name, email address and group, in bytes. A longer subject is refused, the others
/// are left out.
const TEXT_BYTES_MAX: usize = 256;

/// The claims that the standard does not know.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct OtherClaims {
    #[serde(flatten)]
    all: Map<String, Value>,
}

impl AdditionalClaims for OtherClaims {}

impl OtherClaims {
    /// The groups in a claim, or at a JSON pointer: strings of a list, or one string. `None` if there is none.
    fn groups(&self, claim: &str) -> Option<Vec<String>> {
        let all;
        let value = if claim.starts_with('/') {
            all = Value::Object(self.all.clone());
            all.pointer(claim)?
        } else {
            self.all.get(claim)?
        };
        let words: Vec<&str> = match value {
            Value::String(one) => vec![one],
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
            _ => return None,
        };
        Some(words.into_iter().filter_map(text).collect())
    }
}

/// `text`, unless it is empty, too long, or has control characters, which no list shows.
fn text(text: &str) -> Option<String> {
    let is_good = !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control);
    is_good.then(|| text.to_owned())
}

/// A person of whom something can be missing.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) name: Option<String>,
    pub(super) email: Option<String>,
    pub(super) groups: Option<Vec<String>>,
}

/// Name and verified email address of claims; the two types of the library have the same methods.
macro_rules! name_and_email {
    ($claims:expr) => {{
        let claims = $claims;
        let name = claims.name().and_then(|name| name.get(None)).map(|name| name.as_str());
        let name = name.or_else(|| claims.preferred_username().map(|name| name.as_str()));
        let is_verified = claims.email_verified() == Some(true);
        let email = claims.email().filter(|_| is_verified).map(|email| email.as_str());
        (name.and_then(text), email.and_then(text))
    }};
}

/// What a verified ID token says.
pub(super) fn of_id_token(
    claims: &IdTokenClaims<OtherClaims, CoreGenderClaim>,
    settings: &ProviderSettings,
) -> Result<Partial, LoginError> {
    let subject = text(claims.subject().as_str());
    let subject = subject.ok_or_else(|| LoginError::provider("the subject of its ID token is not valid"))?;
    let (name, email) = name_and_email!(claims);
    let groups = claims.additional_claims().groups(&settings.groups_claim);
    Ok(Partial { issuer: settings.issuer.clone(), subject, name, email, groups })
}

impl Partial {
    /// Adds what the userinfo endpoint says, whose subject the library has compared.
    pub(super) fn complete(
        &mut self,
        told: &UserInfoClaims<OtherClaims, CoreGenderClaim>,
        settings: &ProviderSettings,
    ) {
        let (name, email) = name_and_email!(told);
        self.name = self.name.take().or(name);
        self.email = self.email.take().or(email);
        let groups = || told.additional_claims().groups(&settings.groups_claim);
        self.groups = self.groups.take().or_else(groups);
    }

    /// The person, without groups if none were found.
    pub(super) fn done(self) -> Person {
        let Self { issuer, subject, name, email, groups } = self;
        Person { issuer, subject, name, email, groups: groups.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn groups(claims: Value, claim: &str) -> Option<Vec<String>> {
        serde_json::from_value::<OtherClaims>(claims).unwrap().groups(claim)
    }

    #[test]
    fn groups_are_a_list_or_a_string_at_a_name_or_a_pointer() {
        let some = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(groups(json!({ "groups": ["a", 7, "b", ""] }), "groups"), some(&["a", "b"]));
        assert_eq!(groups(json!({ "groups": "a" }), "groups"), some(&["a"]));
        assert_eq!(groups(json!({ "groups": [] }), "groups"), some(&[]));
        assert_eq!(groups(json!({ "https://x/groups": ["a"] }), "https://x/groups"), some(&["a"]));
        let nested = json!({ "realm_access": { "roles": ["a"] } });
        assert_eq!(groups(nested.clone(), "/realm_access/roles"), some(&["a"]));
        assert_eq!(groups(nested, "realm_access"), None);
        assert_eq!(groups(json!({}), "groups"), None);
        assert_eq!(groups(json!({ "groups": ["x".repeat(257), "a\nb"] }), "groups"), some(&[]));
    }
}
