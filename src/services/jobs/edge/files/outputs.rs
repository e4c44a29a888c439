//! A job is completed only with an output that is there.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::net::objects::{ObjectFacts, Objects};
use crate::services::jobs::append;
use crate::services::jobs::command::Fence;
use crate::services::jobs::decide::ObjectKey;
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::event::FileKind;

/// Whether a file differs from what was recorded when its job was completed.
pub(super) fn has_changed(recorded: &Value, facts: &ObjectFacts) -> bool {
    let differs =
        |name: &str, now: Option<Value>| recorded.get(name).is_some_and(|then| now.as_ref() != Some(then));
    differs("size", Some(facts.size.into())) || differs("etag", facts.etag.clone().map(Value::from))
}

impl JobsState {
    /// Checks the output that a completion declares, and returns its size and checksum for the journal. `None` when
    /// the lease is not held: the completion is then refused, or answered as the first one, without a look at
    /// the file. Also `None` without a storage.
    pub(in super::super) async fn declared_output(
        &self,
        job: i64,
        fence: &Fence,
        declared: &str,
    ) -> Result<Option<Value>, Refused> {
        let Some(storage) = &self.parts().storage else { return Ok(None) };
        let Some(held) = append::held_lease(&self.parts().pools, job).await? else { return Ok(None) };
        let is_held =
            fence.lease.is_none_or(|named| (named.attempt, named.claim) == (held.attempt, held.claim))
                && (fence.worker.is_none() || fence.worker == held.worker);
        if !is_held {
            return Ok(None);
        }
        let key = ObjectKey::parse("output_key", declared)?;
        if super::storage::output_of(&key) != Some((job, held.attempt)) {
            return Err(Refused::field("output_key", "is not one of this job and lease"));
        }
        let conflict = |code, why: String| Refused::coded(StatusCode::CONFLICT, code, why);
        let missing = || conflict("output_missing", format!("the output `{key}` was not uploaded"));
        let text = key.to_string();
        let facts = storage.objects().head(&text).await?.ok_or_else(missing)?;
        let is_bucket = matches!(storage.objects(), Objects::Bucket(_));
        let kind = if is_bucket { FileKind::Announced } else { FileKind::Stored };
        let known = append::file_facts(&self.parts().pools, std::slice::from_ref(&text), &[kind]).await?;
        let known = known.get(&text);
        // In the folder nothing else than an upload makes a file; its entry has what was measured.
        if !is_bucket && known.is_none() {
            return Err(missing());
        }
        let size = known.and_then(|known| known.size);
        if size.is_some_and(|size| u64::try_from(size).ok() != Some(facts.size)) {
            let why =
                format!("the output `{key}` has {} bytes, not {}", facts.size, size.unwrap_or_default());
            return Err(conflict("output_size", why));
        }
        let most = storage.settings().file_bytes_max.get();
        if facts.size > most {
            let why = format!("the output `{key}` has {} bytes, at most {most}", facts.size);
            return Err(conflict("output_too_large", why));
        }
        let sha256 = known.filter(|known| known.is_bound || !is_bucket).and_then(|known| known.sha256);
        let mut output = json!({ "size": facts.size });
        if let Some(sha256) = sha256 {
            output["sha256"] = hex::encode(sha256).into();
        }
        if let Some(etag) = facts.etag.filter(|_| is_bucket) {
            output["etag"] = etag.into();
        }
        Ok(Some(output))
    }
}

/// The result of a completion, with the key of the output and what was measured.
pub(in super::super) fn result_with(result: Option<Value>, key: &str, output: Option<Value>) -> Value {
    let mut result = match result {
        Some(Value::Object(result)) => result,
        None => serde_json::Map::new(),
        Some(other) => serde_json::Map::from_iter([("value".to_owned(), other)]),
    };
    result.insert("output_key".to_owned(), key.into());
    if let Some(output) = output {
        result.insert("output".to_owned(), output);
    }
    Value::Object(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_tells_the_output_whatever_its_own_form_is() {
        let output = || Some(json!({ "size": 3 }));
        let told = json!({ "pages": 9, "output_key": "k", "output": { "size": 3 } });
        let forged = json!({ "pages": 9, "output_key": "other", "output": 1 });
        assert_eq!(result_with(Some(forged), "k", output()), told);
        assert_eq!(result_with(None, "k", None), json!({ "output_key": "k" }));
        assert_eq!(result_with(Some(json!([1])), "k", None), json!({ "value": [1], "output_key": "k" }));
    }

    #[test]
    fn a_file_with_another_size_or_mark_has_changed() {
        let facts = |size, etag: &str| ObjectFacts { size, etag: Some(etag.to_owned()) };
        let recorded = json!({ "size": 3, "etag": "a" });
        assert!(!has_changed(&recorded, &facts(3, "a")));
        assert!(has_changed(&recorded, &facts(4, "a")) && has_changed(&recorded, &facts(3, "b")));
        assert!(!has_changed(&Value::Null, &facts(3, "a")), "nothing is known of it");
    }
}
