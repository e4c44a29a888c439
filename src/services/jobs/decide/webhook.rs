//! Webhooks: receivers and the ends of jobs of which they are told, the content, the signature (Standard Webhooks
//! 1.0.0), and what an answer means.
//!
//! A webhook is a job of the type `quipu.webhook.NAME`. It names the entry that it tells of; the URL comes from the
//! settings and the content from the journal, so that a job that was forged can at most repeat a webhook.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use sha2::Sha256;
use url::Url;
use uuid::Uuid;

use super::limits::PRIORITY_DEFAULT;
use super::submission::{WEBHOOK, is_reserved, unique_key};
use crate::base::WebhookKeys;
use crate::services::jobs::command::Submission;
use crate::services::jobs::event::{EndFacts, JobEnd, Status};

/// The type of the webhooks for the receiver with this name. Each receiver has a queue of its own, so that one that
/// does not answer delays no other.
#[must_use]
pub fn webhook_type(receiver: &str) -> String {
    format!("{WEBHOOK}.{receiver}")
}

/// A receiver of webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// Where webhooks are sent.
    pub url: Url,
    /// Types of jobs that it is told of; empty for all.
    pub types: Vec<String>,
    /// Ends that it is told of; empty for all.
    pub statuses: Vec<Status>,
    /// Attempts that may fail before a webhook is dead.
    pub attempts_max: i32,
}

impl Receiver {
    /// Whether it is told of this end. Never of the end of a webhook.
    #[must_use]
    pub fn wants(&self, end: &JobEnd) -> bool {
        !is_reserved(&end.job_type)
            && (self.types.is_empty() || self.types.contains(&end.job_type))
            && (self.statuses.is_empty() || self.statuses.contains(&end.status))
    }

    /// The webhook that tells it of this end, without a number; the same end gives the same unique key. `id`: drawn
    /// by chance.
    #[must_use]
    pub fn submission(&self, end: &JobEnd, id: Uuid) -> Submission {
        let job_type = webhook_type(&self.name);
        // The key contains the reserved type, so no client can submit a job with it.
        let unique_key = unique_key(&job_type, Some(&format!("{} {}", end.job, end.step)), None);
        Submission {
            number: 0,
            job_type,
            priority: PRIORITY_DEFAULT,
            run_at_us: None,
            attempts_max: self.attempts_max,
            unique_key,
            source_hash: None,
            source_path: None,
            source_size: None,
            tags: None,
            metadata: Some(json!(WebhookTask { id, job: end.job, step: end.step })),
            depends_on: Vec::new(),
            actor: "quipu".to_owned(),
        }
    }
}

/// What a webhook tells of: the metadata of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookTask {
    /// Sent as `webhook-id`, the same with each attempt.
    pub id: Uuid,
    /// The job that has ended.
    pub job: i64,
    /// The step by which it has.
    pub step: i32,
}

/// The body of a webhook. With each attempt it is the same.
#[must_use]
pub fn body_of(facts: &EndFacts) -> String {
    let EndFacts { end, attempt, why, result, source_hash, tags, created_at, ended_at } = facts;
    // A value of a client is passed on as it is stored.
    let raw = |text: &Option<String>| text.clone().and_then(|text| RawValue::from_string(text).ok());
    let data = Data {
        attempt: *attempt,
        created_at,
        ended_at,
        error: why.as_deref(),
        job_id: end.job,
        job_type: &end.job_type,
        result: raw(result),
        source_hash: source_hash.as_deref(),
        status: end.status,
        step: end.step,
        tags: raw(tags),
    };
    let event = Event { data, timestamp: ended_at, r#type: format!("job.{}", end.status.as_str()) };
    serde_json::to_string(&event).expect("names, numbers, times and JSON texts are JSON")
}

#[derive(Serialize)]
struct Event<'a> {
    data: Data<'a>,
    timestamp: &'a DateTime<Utc>,
    r#type: String,
}

#[derive(Serialize)]
struct Data<'a> {
    attempt: i32,
    created_at: &'a DateTime<Utc>,
    ended_at: &'a DateTime<Utc>,
    error: Option<&'a str>,
    job_id: i64,
    job_type: &'a str,
    result: Option<Box<RawValue>>,
    source_hash: Option<&'a str>,
    status: Status,
    step: i32,
    tags: Option<Box<RawValue>>,
}

/// The value of `webhook-signature`: for each key `v1,` and the Base64 of HMAC-SHA-256 over id, time of the attempt
/// (Unix seconds) and body. `id` has no full stop.
#[must_use]
pub fn signature(keys: &WebhookKeys, id: &str, timestamp: i64, body: &str) -> String {
    let signed = keys.expose().map(|key| {
        let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
        hmac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(hmac.finalize().into_bytes()))
    });
    signed.collect::<Vec<_>>().join(" ")
}

/// What the answer of a receiver means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It has the webhook.
    Delivered,
    /// It wants no such webhook any more.
    Gone,
    /// It may take the webhook later.
    Refused,
}

impl Answer {
    /// The meaning of an HTTP status. A redirect is a refusal: it could lead anywhere.
    #[must_use]
    pub fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Delivered,
            410 => Self::Gone,
            _ => Self::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn end(job_type: &str, status: Status) -> JobEnd {
        JobEnd { position: 1, job: 7, step: 2, job_type: job_type.to_owned(), status }
    }

    fn receiver(types: &[&str], statuses: &[Status]) -> Receiver {
        Receiver {
            name: "billing".to_owned(),
            url: Url::parse("https://billing.example.com/").unwrap(),
            types: types.iter().map(|job_type| (*job_type).to_owned()).collect(),
            statuses: statuses.to_vec(),
            attempts_max: 20,
        }
    }

    /// The vector of the specification's reference libraries.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let keys = WebhookKeys::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let body = r#"{"email":"test@example.com","username":"test_user"}"#;
        let signed = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
        assert_eq!(signature(&keys, "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body), signed);
        let both = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let both = WebhookKeys::parse(both).unwrap();
        let two = signature(&both, "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body);
        assert!(two.starts_with("v1,") && two.ends_with(&format!(" {signed}")), "{two}");
    }

    #[test]
    fn a_receiver_is_told_of_what_it_wants_and_never_of_webhooks() {
        let (done, dead) = (end("pdf", Status::Completed), end("pdf", Status::Dead));
        assert!(receiver(&[], &[]).wants(&done) && receiver(&[], &[]).wants(&dead));
        let some = receiver(&["pdf"], &[Status::Dead]);
        assert!(some.wants(&dead) && !some.wants(&done) && !some.wants(&end("image", Status::Dead)));
        for reserved in ["quipu.webhook", "quipu.webhook.billing"] {
            let end = end(reserved, Status::Dead);
            assert!(!receiver(&[], &[]).wants(&end) && !receiver(&[reserved], &[]).wants(&end));
        }
        assert!(receiver(&[], &[]).wants(&end("quipu.webhooks", Status::Dead)));
    }

    #[test]
    fn each_end_and_receiver_has_a_webhook_of_its_own() {
        let key = |receiver: &Receiver, end: &JobEnd| receiver.submission(end, Uuid::nil()).unique_key;
        let (one, done) = (receiver(&[], &[]), end("pdf", Status::Completed));
        let other = Receiver { name: "chat".to_owned(), ..one.clone() };
        assert!(key(&one, &done).is_some());
        assert_eq!(key(&one, &done), one.submission(&done, Uuid::max()).unique_key);
        assert_ne!(key(&one, &done), key(&other, &done));
        assert_ne!(key(&one, &done), key(&one, &JobEnd { step: 4, ..done.clone() }));
        let stored = one.submission(&done, Uuid::nil());
        assert_eq!(stored.job_type, "quipu.webhook.billing");
        let task: WebhookTask = serde_json::from_value(stored.metadata.unwrap()).unwrap();
        assert_eq!(task, WebhookTask { id: Uuid::nil(), job: 7, step: 2 });
    }

    #[test]
    fn a_body_says_what_happened_to_which_job() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let facts = EndFacts {
            end: end("pdf", Status::Completed),
            attempt: 1,
            why: None,
            result: Some(r#"{"pages": 9}"#.to_owned()),
            source_hash: Some("abc".to_owned()),
            tags: None,
            created_at: at(1_700_000_000),
            ended_at: at(1_700_000_060),
        };
        let expected = json!({
            "type": "job.completed",
            "timestamp": "2023-11-14T22:14:20Z",
            "data": {
                "job_id": 7, "job_type": "pdf", "status": "completed", "step": 2, "attempt": 1,
                "result": { "pages": 9 }, "error": null, "source_hash": "abc", "tags": null,
                "created_at": "2023-11-14T22:13:20Z", "ended_at": "2023-11-14T22:14:20Z",
            },
        });
        assert_eq!(serde_json::from_str::<Value>(&body_of(&facts)).unwrap(), expected);
    }

    #[test]
    fn only_a_success_is_a_delivery() {
        let answers = [199, 200, 204, 299, 301, 308, 400, 410, 429, 500].map(Answer::of);
        let [refused, delivered] = [Answer::Refused, Answer::Delivered];
        let expected = [
            refused,
            delivered,
            delivered,
            delivered,
            refused,
            refused,
            refused,
            Answer::Gone,
            refused,
            refused,
        ];
        assert_eq!(answers, expected);
    }
}
