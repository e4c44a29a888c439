//! Setting `services.jobs.webhooks`, and the keys by which webhooks are signed.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::environment::{Environment, WEBHOOK_SECRET};
use super::job_login::is_local;
use super::layer::{ENVIRONMENT, Problem};
use crate::base::{JOB_ATTEMPTS_MAX, WebhookKeys};

/// Most receivers: each has a queue and requests of its own.
const RECEIVERS_MAX: usize = 16;

/// Longest name, bytes: it is part of a type.
const NAME_BYTES_MAX: usize = 32;

/// Longest URL, bytes.
const URL_BYTES_MAX: usize = 2_048;

/// Most types of a receiver: each end of a job is compared with them.
const TYPES_MAX: usize = 64;

/// The ends of jobs.
const STATUSES: [&str; 3] = ["completed", "dead", "cancelled"];

/// A receiver of webhooks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobWebhook {
    /// Name, part of the type of its jobs.
    pub name: String,
    /// Where webhooks are sent: `https`, or `http` at an address of this machine or a private network.
    pub url: String,
    /// Types of jobs that it is told of; empty for all.
    #[serde(default)]
    pub types: Vec<String>,
    /// Ends that it is told of: `completed`, `dead`, `cancelled`; empty for all.
    #[serde(default)]
    pub statuses: Vec<String>,
    /// Attempts that may fail before a webhook is dead. With the pauses between them, 20 last 10 hours or more.
    #[serde(default = "attempts_max")]
    pub attempts_max: NonZeroU32,
}

const fn attempts_max() -> NonZeroU32 {
    nonzero!(NonZeroU32, 20)
}

/// What is refused although the types allow it. URLs are not shown: they may contain a token.
pub(super) fn refused(webhooks: &[JobWebhook]) -> Vec<String> {
    let mut refused = Vec::new();
    if webhooks.len() > RECEIVERS_MAX {
        refused.push(format!("{} entries: at most {RECEIVERS_MAX}", webhooks.len()));
    }
    for JobWebhook { name, url, types, statuses, attempts_max } in webhooks {
        let mut check = |is_good: bool, reason: String| {
            if !is_good {
                refused.push(format!("{name}: {reason}"));
            }
        };
        let expected = format!("name: expected 1 to {NAME_BYTES_MAX} of a-z, 0-9, `-` and `_`");
        check(is_name(name), expected);
        let others = webhooks.iter().filter(|other| other.name == *name).count();
        check(others == 1, "name: used more than once".to_owned());
        let expected =
            "url: expected an https URL, or http at a private address, without user, password and fragment";
        check(is_url(url), expected.to_owned());
        check(types.len() <= TYPES_MAX, format!("types: {} entries: at most {TYPES_MAX}", types.len()));
        for status in statuses {
            let is_end = STATUSES.contains(&status.as_str());
            check(is_end, format!("statuses: `{status}` is none of {}", STATUSES.join(", ")));
        }
        let attempts = attempts_max.get();
        check(
            i64::from(attempts) <= i64::from(JOB_ATTEMPTS_MAX),
            format!("attempts_max {attempts}: at most {JOB_ATTEMPTS_MAX}"),
        );
    }
    refused
}

fn is_name(name: &str) -> bool {
    let is_in = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_in)
}

fn is_url(text: &str) -> bool {
    let is_good = |url: Url| {
        url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
            && (url.scheme() == "https" || (url.scheme() == "http" && is_local(&url)))
    };
    text.len() <= URL_BYTES_MAX && Url::parse(text).is_ok_and(is_good)
}

/// The keys in the environment; `None` if there are none.
///
/// # Errors
/// When they cannot be read, or are missing although there are receivers.
pub(super) fn keys(
    environment: &Environment,
    webhooks: &[JobWebhook],
) -> Result<Option<WebhookKeys>, Problem> {
    let problem =
        |reason: String| Problem { source: ENVIRONMENT.into(), key: WEBHOOK_SECRET.to_owned(), reason };
    match environment.get(WEBHOOK_SECRET) {
        Some(text) => WebhookKeys::parse(text).map(Some).map_err(|error| problem(error.to_string())),
        None if webhooks.is_empty() => Ok(None),
        None => Err(problem("must be set: webhooks of services.jobs.webhooks are signed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(name: &str, url: &str) -> JobWebhook {
        JobWebhook {
            name: name.to_owned(),
            url: url.to_owned(),
            types: Vec::new(),
            statuses: Vec::new(),
            attempts_max: attempts_max(),
        }
    }

    #[test]
    fn a_receiver_has_a_name_of_its_own_and_is_near_or_reached_with_encryption() {
        for url in ["https://example.com/hooks?token=x", "http://127.0.0.1:9/", "http://billing:8080/quipu"] {
            assert_eq!(refused(&[webhook("billing", url)]), Vec::<String>::new(), "{url}");
        }
        for url in ["http://example.com/", "https://u:hunter2@example.com/", "ftp://127.0.0.1", "x", ""] {
            let refused = refused(&[webhook("billing", url)]);
            assert!(refused.len() == 1 && refused[0].starts_with("billing: url: "), "{url}: {refused:?}");
            assert!(!refused[0].contains("hunter2"));
        }
        for name in ["", "a.b", "A", &"x".repeat(33)] {
            let refused = refused(&[webhook(name, "https://example.com/")]);
            assert!(refused.len() == 1 && refused[0].contains("name: expected"), "{refused:?}");
        }
        let twice = [webhook("a", "https://example.com/"), webhook("a", "https://example.net/")];
        assert_eq!(refused(&twice), ["a: name: used more than once"; 2]);
        let many: Vec<_> =
            (0..17).map(|number| webhook(&format!("a{number}"), "https://example.com/")).collect();
        assert_eq!(refused(&many), ["17 entries: at most 16"]);
    }

    #[test]
    fn a_receiver_is_told_of_ends_alone() {
        let wrong = JobWebhook {
            statuses: vec!["completed".to_owned(), "failed".to_owned()],
            attempts_max: nonzero!(NonZeroU32, 101),
            ..webhook("a", "https://example.com/")
        };
        let expected = [
            "a: statuses: `failed` is none of completed, dead, cancelled",
            "a: attempts_max 101: at most 100",
        ];
        assert_eq!(refused(&[wrong]), expected);
    }
}
