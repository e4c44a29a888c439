//! A client of the HTTP interface of jobs.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use url::Url;

use crate::base::Secret;
use crate::cli::output::one_line;
use crate::net::{Call, Caller, Content, DialError, FetchError, Reply, Verb};

/// Time limit for an answer.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Longest answer, bytes: a page of a hundred jobs with metadata and result of the longest that are accepted.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Characters of a server's text that are shown.
const SHOWN: usize = 300;

/// The server of jobs, with a credential.
#[derive(Debug)]
pub(in crate::cli) struct Server {
    caller: Caller,
    base: Url,
    credential: Vec<(&'static str, Secret)>,
}

/// Why a request has no result.
#[derive(Debug, Error)]
pub(in crate::cli) enum Trouble {
    #[error("{url}: {why}{}", advice_of_failure(.why))]
    Unreachable { url: Box<Url>, why: FetchError },
    #[error("the server refuses with {status}: {}{}", one_line(.message, SHOWN), advice(*.status))]
    Refused { status: u16, code: String, message: String },
    #[error("{0} answers with something that is not JSON; is it a server of jobs?")]
    NotJson(Box<Url>),
}

impl Trouble {
    /// Whether the same request may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { why, .. } => match why {
                FetchError::Dial(dial) => {
                    !matches!(dial, DialError::Disabled(_) | DialError::Settings(_) | DialError::Hidden(_))
                }
                FetchError::Timeout(_) | FetchError::Http(_) => true,
                FetchError::BadUrl(_)
                | FetchError::TooLarge { .. }
                | FetchError::TooManyRedirects(_)
                | FetchError::BadRedirect(_)
                | FetchError::Body(_) => false,
            },
            Self::Refused { status, .. } => *status >= 500 && *status != 501 || matches!(status, 408 | 429),
            Self::NotJson(_) => false,
        }
    }

    /// The status and the code of a refusal.
    pub(super) fn refusal(&self) -> Option<(u16, &str)> {
        match self {
            Self::Refused { status, code, .. } => Some((*status, code)),
            Self::Unreachable { .. } | Self::NotJson(_) => None,
        }
    }
}

fn advice(status: u16) -> &'static str {
    match status {
        401 => {
            "; give a token: `quipu tokens create --name NAME` makes one, --token or QUIPU_JOBS_TOKEN gives it"
        }
        403 => "; the token needs the scope, or has to be an administrator's",
        _ => "",
    }
}

fn advice_of_failure(why: &FetchError) -> &'static str {
    match why {
        FetchError::Dial(DialError::Refused) => {
            "; does the service `jobs` run there? --server or QUIPU_JOBS_URL names another server"
        }
        _ => "",
    }
}

/// The part of a refusal's body that is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RefusalBody {
    code: String,
    message: String,
    error: String,
}

impl Server {
    pub(super) fn new(caller: Caller, base: Url, credential: Vec<(&'static str, Secret)>) -> Self {
        Self { caller, base, credential }
    }

    /// The URL of the server.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// The URL of a path of the server: its segments, unescaped.
    pub(super) fn at(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// A URL that the server names, which may be relative to it.
    pub(super) fn named(&self, text: &str) -> Result<Url, url::ParseError> {
        self.base.join(text)
    }

    /// Reads a resource.
    pub(super) async fn get(&self, url: Url) -> Result<Value, Trouble> {
        self.ask(Verb::Get, url, Content::None, ANSWER_WITHIN).await
    }

    /// Asks for a change.
    pub(super) async fn post(&self, segments: &[&str], body: &Value) -> Result<Value, Trouble> {
        self.post_within(segments, body, ANSWER_WITHIN).await
    }

    /// As [`Server::post`], with another time limit for the beginning of the answer.
    pub(super) async fn post_within(
        &self,
        segments: &[&str],
        body: &Value,
        within: Duration,
    ) -> Result<Value, Trouble> {
        self.ask(Verb::Post, self.at(segments), Content::Json(body.to_string()), within).await
    }

    /// Removes a resource.
    pub(super) async fn delete(&self, segments: &[&str]) -> Result<Value, Trouble> {
        self.ask(Verb::Delete, self.at(segments), Content::None, ANSWER_WITHIN).await
    }

    /// As [`Server::post_within`], for an answer that `read` understands.
    pub(super) async fn post_to_read<T>(
        &self,
        segments: &[&str],
        body: &Value,
        within: Duration,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, Trouble> {
        self.ask_to_read(Verb::Post, self.at(segments), Content::Json(body.to_string()), within, read).await
    }

    async fn ask(&self, verb: Verb, url: Url, content: Content, within: Duration) -> Result<Value, Trouble> {
        self.ask_to_read(verb, url, content, within, |body| serde_json::from_slice(body).ok()).await
    }

    async fn ask_to_read<T>(
        &self,
        verb: Verb,
        url: Url,
        content: Content,
        within: Duration,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, Trouble> {
        let reply = self.open(verb, &url, content, &[], within).await?;
        let body = reply.body(ANSWER_BYTES_MAX, ANSWER_WITHIN).await;
        let body = body.map_err(|why| Trouble::Unreachable { url: Box::new(url.clone()), why })?;
        read(&body).ok_or_else(|| Trouble::NotJson(Box::new(url)))
    }

    /// Sends a request with the credential. The body of a successful answer is left to the caller.
    pub(super) async fn open(
        &self,
        verb: Verb,
        url: &Url,
        content: Content,
        headers: &[(&'static str, Secret)],
        within: Duration,
    ) -> Result<Reply, Trouble> {
        let headers: Vec<_> = self.credential.iter().chain(headers).cloned().collect();
        self.send(Call { verb, url, headers: &headers, content, head_within: within }).await
    }

    /// Sends a request as it is, without the credential.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Reply, Trouble> {
        let url = call.url.clone();
        let unreachable = |why| Trouble::Unreachable { url: Box::new(url.clone()), why };
        let reply = self.caller.call(call).await.map_err(unreachable)?;
        if (200..300).contains(&reply.status) {
            return Ok(reply);
        }
        let status = reply.status;
        let body = reply.body(1024 * 1024, ANSWER_WITHIN).await.unwrap_or_default();
        let RefusalBody { code, message, error } = serde_json::from_slice(&body).unwrap_or_default();
        let message = [message, error].into_iter().find(|text| !text.is_empty());
        let message = message.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
        Err(Trouble::Refused { status, code, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Networks;
    use crate::net::Egress;

    #[test]
    fn a_path_is_escaped_and_goes_below_the_path_of_the_server() {
        let caller = || Egress::new(&Networks::default()).unwrap().caller().unwrap();
        let at = |base: &str, segments: &[&str]| {
            Server::new(caller(), Url::parse(base).unwrap(), Vec::new()).at(segments).to_string()
        };
        let drain = ["api", "workers", "a/b ?", "drain"];
        assert_eq!(at("http://127.0.0.1:1", &drain), "http://127.0.0.1:1/api/workers/a%2Fb%20%3F/drain");
        assert_eq!(at("https://h/queue/", &["events"]), "https://h/queue/events");
        assert_eq!(at("https://h/queue", &["events"]), "https://h/queue/events");
    }

    #[test]
    fn a_refusal_for_good_is_not_repeated() {
        let refused = |status| Trouble::Refused { status, code: String::new(), message: String::new() };
        for status in [408, 429, 500, 503, 507] {
            assert!(refused(status).is_transient(), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 409, 501] {
            assert!(!refused(status).is_transient(), "{status}");
        }
    }
}
