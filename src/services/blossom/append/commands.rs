//! Commands as `quipu_append_blobs` reads them.

use serde_json::{Value, json};

use crate::services::blossom::command::{BlobCommand, BlobReport, ReplicaResult, StoreBlob, WantedBlob};
use crate::services::blossom::event::{
    MEDIA_TYPE_BYTES_MAX, REPORT_BYTES_MAX, ReplicaEvent, URL_BYTES_MAX, WHY_BYTES_MAX,
};

/// Longest kind of a report in rows, bytes.
const REPORT_KIND_BYTES_MAX: usize = 64;

/// The media type of a blob that states none, or too long a one.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// The argument for one command.
pub(super) fn json(command: &BlobCommand) -> Value {
    match command {
        BlobCommand::Store(store) => stored(store),
        BlobCommand::Replicas { sha256, results, actor } => {
            json!({ "do": "replicas", "sha256": sha256, "results": happened(results), "actor": actor })
        }
        BlobCommand::Disown { sha256, owner, actor } => {
            json!({ "do": "disown", "sha256": sha256, "owner": hex::encode(owner), "actor": actor })
        }
        BlobCommand::Ban { sha256, why, actor } => {
            json!({ "do": "ban", "sha256": sha256, "why": bounded(why, WHY_BYTES_MAX), "actor": actor })
        }
        BlobCommand::Unban { sha256, actor } => json!({ "do": "unban", "sha256": sha256, "actor": actor }),
        BlobCommand::Missed { sha256, why } => {
            json!({ "do": "missed", "sha256": sha256, "why": bounded(why, WHY_BYTES_MAX) })
        }
        BlobCommand::Report(report) => reported(report),
        BlobCommand::Follow { pubkey, is_on, actor } => {
            json!({ "do": "follow", "pubkey": hex::encode(pubkey), "is_on": is_on, "actor": actor })
        }
        BlobCommand::Want(wanted) => {
            let wanted: Value = wanted.iter().filter_map(reference).collect();
            json!({ "do": "want", "wanted": wanted })
        }
    }
}

fn stored(store: &StoreBlob) -> Value {
    let StoreBlob { facts, owner, results, actor } = store;
    let media_type = bounded(&facts.media_type, MEDIA_TYPE_BYTES_MAX);
    let is_whole = !media_type.is_empty() && media_type == facts.media_type;
    let media_type = if is_whole { media_type.to_ascii_lowercase() } else { UNKNOWN_TYPE.to_owned() };
    let mut json = json!({
        "do": "store", "sha256": facts.sha256, "size": facts.size, "type": media_type,
        "results": happened(results), "actor": actor,
    });
    if let Some(owner) = owner {
        json["owner"] = hex::encode(owner.pubkey).into();
        json["how"] = owner.how.as_str().into();
        json["origin"] = owner.origin.as_deref().map(|origin| bounded(origin, URL_BYTES_MAX)).into();
        json["bytes_max"] = owner.bytes_max.into();
        json["blobs_max"] = owner.blobs_max.into();
    }
    json
}

fn happened(results: &[ReplicaResult]) -> Value {
    let result = |result: &ReplicaResult| {
        let why = match result.event {
            ReplicaEvent::Proven(proof) => Some(proof.as_str().to_owned()),
            _ => result.why.as_deref().map(|why| bounded(why, WHY_BYTES_MAX)),
        };
        json!({ "upstream": result.upstream, "kind": result.event.as_str(), "why": why })
    };
    results.iter().map(result).collect()
}

fn reported(report: &BlobReport) -> Value {
    let BlobReport { event_id, reporter, blobs, content, event } = report;
    let blobs: Value = blobs
        .iter()
        .map(|(sha256, kind)| json!({ "sha256": sha256, "kind": bounded(kind, REPORT_KIND_BYTES_MAX) }))
        .collect();
    json!({
        "do": "report", "event_id": hex::encode(event_id), "reporter": hex::encode(reporter), "blobs": blobs,
        "content": bounded(content, REPORT_BYTES_MAX), "event": event,
    })
}

/// `None` of a URL that is too long.
fn reference(wanted: &WantedBlob) -> Option<Value> {
    let WantedBlob { sha256, owner, event_id, url } = wanted;
    let url = match url {
        Some(url) if url.is_empty() || url.len() > URL_BYTES_MAX || url.contains('\0') => return None,
        url => url,
    };
    Some(json!({
        "sha256": sha256, "owner": hex::encode(owner), "event_id": hex::encode(event_id), "url": url,
    }))
}

/// The text without NUL, which PostgreSQL does not store, and cut to so many bytes.
fn bounded(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].replace('\0', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Sha256;
    use crate::services::blossom::event::{BlobFacts, Proof};

    #[test]
    fn texts_are_cut_at_a_character_and_have_no_nul() {
        assert_eq!(bounded("äöü", 5), "äö");
        assert_eq!(bounded("a\0b", 10), "ab");
        assert_eq!(bounded("", 3), "");
    }

    #[test]
    fn a_proof_says_how_and_a_type_that_is_too_long_counts_as_unknown() {
        let facts = BlobFacts { sha256: Sha256::of(b""), size: 0, media_type: "x".repeat(300) };
        let proven = ReplicaEvent::Proven(Proof::Hash);
        let results = vec![ReplicaResult { upstream: "https://a".to_owned(), event: proven, why: None }];
        let store = StoreBlob { facts, owner: None, results, actor: "quipu".to_owned() };
        let json = json(&BlobCommand::Store(store));
        assert_eq!(json["results"][0], json!({ "upstream": "https://a", "kind": "proven", "why": "hash" }));
        assert_eq!(json["type"], UNKNOWN_TYPE);
        assert!(json.get("owner").is_none());
    }

    #[test]
    fn a_reference_by_a_url_that_is_too_long_is_left_out() {
        let wanted = |url: String| WantedBlob {
            sha256: Sha256::of(b""),
            owner: [1; 32],
            event_id: [2; 32],
            url: Some(url),
        };
        let json =
            json(&BlobCommand::Want(vec![wanted("u".repeat(2_049)), wanted("https://a/b".to_owned())]));
        assert_eq!(json["wanted"].as_array().map(Vec::len), Some(1));
    }
}
