//! What a claim led to.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::output;

/// What a claim led to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Claim {
    /// A leased job.
    Job(Box<Value>),
    /// A leased job that this program cannot read: the answer with its number and its lease alone.
    Unreadable(Box<Value>),
    /// No job.
    None,
    /// The worker gets none, for this reason.
    NotServed(String),
}

/// The part of an answer that names the lease. What else the answer has is passed over without being read.
#[derive(Debug, Deserialize)]
struct LeaseOfAnswer {
    job: Numbered,
    lease_token: String,
}

#[derive(Debug, Deserialize)]
struct Numbered {
    id: i64,
}

impl Claim {
    /// Reads the answer to a claim; `None` if it is none.
    ///
    /// A job may have data that no reader of JSON takes: too many levels, or numbers that are too large. Such a job
    /// is failed like any other that cannot be done, and the worker goes on.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let Ok(answer) = serde_json::from_slice::<Value>(body) else {
            let LeaseOfAnswer { job, lease_token } = serde_json::from_slice(body).ok()?;
            let lease = json!({ "job": { "id": job.id }, "lease_token": lease_token });
            return Some(Self::Unreadable(Box::new(lease)));
        };
        Some(match answer["reason"].as_str() {
            _ if answer["job"].is_object() => Self::Job(Box::new(answer)),
            Some(reason) => Self::NotServed(output::one_line(reason, 40)),
            None => Self::None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(metadata: &str) -> String {
        format!(r#"{{"config": {{}}, "job": {{"id": 7, "metadata": {metadata}}}, "lease_token": "t"}}"#)
    }

    #[test]
    fn a_job_that_cannot_be_read_is_known_by_its_lease() {
        let lease = Claim::Unreadable(Box::new(json!({ "job": { "id": 7 }, "lease_token": "t" })));
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for metadata in [deep.as_str(), "{\"x\": 1e999}", &format!("1{}", "0".repeat(999))] {
            assert_eq!(Claim::read(answer(metadata).as_bytes()), Some(lease.clone()));
        }
        assert!(matches!(Claim::read(answer("1").as_bytes()), Some(Claim::Job(_))));
        assert_eq!(
            Claim::read(b"{\"job\": null, \"reason\": \"draining\"}"),
            Some(Claim::NotServed("draining".to_owned()))
        );
        assert_eq!(Claim::read(b"{\"job\": null}"), Some(Claim::None));
        assert_eq!(Claim::read(b"<html>"), None);
    }
}
