//! Section `services.jobs.oidc`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::base::{is_local_ip, is_local_name};

/// Path of the address to which the provider sends a browser back.
const CALLBACK: &str = "/auth/callback";

/// Most groups of a list, and bytes of a group, scope or claim: each is compared at a login, and those of a user
/// are stored.
const GROUPS_MAX: usize = 256;
const WORD_BYTES_MAX: usize = 256;

/// Section `services.jobs.oidc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JobLogin {
    /// URL of the `OpenID` provider, exactly as its discovery document states it: `https`, or `http` at an
    /// address of this machine or a private network. Without a value people do not log in. The variable
    /// `BLOBFORGE_OIDC_ISSUER` sets it too.
    pub issuer: Option<String>,
    /// Id under which the provider knows this program. The variable `BLOBFORGE_OIDC_CLIENT_ID` sets it too.
    pub client_id: Option<String>,
    /// Address at which browsers reach `/auth/callback` of this listener: `https`, or `http` at `localhost` or a
    /// loopback address. Cookies are sent to this host alone, and with `https` only encrypted. The variable
    /// `BLOBFORGE_OIDC_REDIRECT_URL` sets it too.
    pub redirect_url: Option<String>,
    /// What the provider is asked for beside `openid`. Leave out `groups` if the provider does not know it.
    pub scopes: Vec<String>,
    /// Claim with the groups of a user, in the ID token or else in the answer of the provider's userinfo endpoint:
    /// a list of strings, or one string. With a leading `/` it is a JSON pointer, such as `/realm_access/roles`.
    /// The variable `BLOBFORGE_OIDC_GROUPS_CLAIM` sets it too.
    pub groups_claim: String,
    /// Groups whose members may log in; empty for all users of the provider. The variable
    /// `BLOBFORGE_OIDC_ALLOWED_GROUPS` sets it too, separated by commas.
    pub allowed_groups: Vec<String>,
    /// Groups whose members may log in as administrators. The variable `BLOBFORGE_OIDC_ADMIN_GROUPS` sets it
    /// too, separated by commas.
    pub admin_groups: Vec<String>,
}

impl Default for JobLogin {
    fn default() -> Self {
        Self {
            issuer: None,
            client_id: None,
            redirect_url: None,
            scopes: ["profile", "email", "groups"].map(str::to_owned).to_vec(),
            groups_claim: "groups".to_owned(),
            allowed_groups: Vec::new(),
            admin_groups: Vec::new(),
        }
    }
}

impl JobLogin {
    /// Whether people can log in.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.issuer.is_some()
    }

    /// Values that are refused although their types allow them, by key.
    pub(super) fn refused(&self) -> Vec<(&'static str, String)> {
        let mut refused = Vec::new();
        let lists = [
            ("oidc.scopes", &self.scopes),
            ("oidc.allowed_groups", &self.allowed_groups),
            ("oidc.admin_groups", &self.admin_groups),
        ];
        for (key, list) in lists {
            if list.len() > GROUPS_MAX {
                refused.push((key, format!("{} entries: at most {GROUPS_MAX}", list.len())));
            }
            if list.iter().any(|word| !is_word(word)) {
                refused.push((key, format!("an entry has no or more than {WORD_BYTES_MAX} bytes")));
            }
        }
        if !is_word(&self.groups_claim) {
            refused.push(("oidc.groups_claim", format!("no or more than {WORD_BYTES_MAX} bytes")));
        }
        let Some(issuer) = &self.issuer else { return refused };
        if !plain(issuer).is_some_and(|url| url.scheme() == "https" || is_local(&url)) {
            let expected =
                "expected an https URL, or http at a private address, without user, query and fragment";
            refused.push(("oidc.issuer", expected.to_owned()));
        }
        if self.client_id.as_deref().is_none_or(|id| !is_word(id)) {
            refused.push(("oidc.client_id", "must be set: services.jobs.oidc.issuer is".to_owned()));
        }
        let redirect = self.redirect_url.as_deref().and_then(plain);
        let is_good = |url: &Url| url.path() == CALLBACK && (url.scheme() == "https" || is_loopback(url));
        if !redirect.as_ref().is_some_and(is_good) {
            let expected =
                format!("expected https://HOST{CALLBACK}, or http at localhost or a loopback address");
            refused.push(("oidc.redirect_url", expected));
        }
        refused
    }
}

fn is_word(word: &str) -> bool {
    !word.is_empty() && word.len() <= WORD_BYTES_MAX
}

/// An http or https URL without user, query and fragment.
fn plain(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    is_plain.then_some(url)
}

/// Whether the host is this machine or in a private network.
pub(super) fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_local_name(name),
        Some(Host::Ipv4(ip)) => is_local_ip(ip.into()),
        Some(Host::Ipv6(ip)) => is_local_ip(ip.into()),
        None => false,
    }
}

/// Whether the host is this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(issuer: &str, redirect: &str) -> Vec<&'static str> {
        let login = JobLogin {
            issuer: Some(issuer.to_owned()),
            client_id: Some("quipu".to_owned()),
            redirect_url: Some(redirect.to_owned()),
            ..JobLogin::default()
        };
        login.refused().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn without_encryption_a_provider_is_near_and_the_browser_on_this_machine() {
        let callback = "https://jobs.example.com/auth/callback";
        for issuer in
            ["https://id.example.com/realms/x", "http://127.0.0.1:9", "http://10.0.0.7/", "http://idp.local"]
        {
            assert!(keys(issuer, callback).is_empty(), "{issuer}");
        }
        for issuer in [
            "http://id.example.com",
            "ftp://127.0.0.1",
            "https://u:p@id.example.com",
            "https://id.example.com/?a",
            "id",
        ] {
            assert_eq!(keys(issuer, callback), ["oidc.issuer"], "{issuer}");
        }
        let issuer = "https://id.example.com";
        for redirect in [
            "http://localhost:4707/auth/callback",
            "http://[::1]/auth/callback",
            "http://127.0.0.1:8080/auth/callback",
        ] {
            assert!(keys(issuer, redirect).is_empty(), "{redirect}");
        }
        for redirect in [
            "http://10.0.0.7/auth/callback",
            "https://jobs.example.com/callback",
            "http://jobs.example.com/auth/callback",
        ] {
            assert_eq!(keys(issuer, redirect), ["oidc.redirect_url"], "{redirect}");
        }
    }

    #[test]
    fn a_provider_needs_a_client_id_and_an_address_to_return_to() {
        let login = JobLogin { issuer: Some("https://id.example.com".to_owned()), ..JobLogin::default() };
        let keys: Vec<_> = login.refused().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["oidc.client_id", "oidc.redirect_url"]);
        assert!(JobLogin::default().refused().is_empty());
    }
}
