//! The upstreams of section `services.blossom`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// Longest URL of an upstream, bytes: it stands in rows.
const URL_BYTES_MAX: usize = 512;

/// Which upstream is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RedirectStrategy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Any.
    Random,
    /// The lowest `priority`.
    Priority,
    /// The one with the fewest failures and the shortest answers.
    HealthBased,
    /// This listener.
    Local,
}

/// One upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlossomUpstream {
    /// URL: a Blossom server (`https://…`, `http://…`), a folder (`file:///path`) or a bucket
    /// (`s3://bucket/prefix`). A server may have a private address, because you name it.
    pub url: String,
    /// URL that is dialled in place of `url`, such as `https://10.0.0.5`; clients are told `url`.
    #[serde(default)]
    pub alternative_address: Option<String>,
    /// The lowest is preferred.
    #[serde(default)]
    pub priority: i32,
    /// Whether the server copies blobs from URLs (`PUT /mirror`).
    #[serde(default)]
    pub supports_mirror: bool,
    /// Whether the server answers `HEAD /upload`.
    #[serde(default)]
    pub supports_upload_head: bool,
    /// Whether this server is used with the operator's key, which comes only from the environment
    /// (`QUIPU_BLOSSOM_KEY`), and never with the tokens of clients. Without it the key is used where the client's token
    /// is not valid.
    #[serde(default)]
    pub sign: bool,
    /// URL of the server of a bucket, `http://…` or `https://…`; without a value Amazon's.
    #[serde(default)]
    pub s3_endpoint: Option<String>,
    /// Region of a bucket; without a value `auto`, which is for servers without regions.
    #[serde(default)]
    pub s3_region: Option<String>,
}

impl BlossomUpstream {
    /// Its name in rows: the URL without a slash at its end.
    #[must_use]
    pub fn name(&self) -> &str {
        self.url.trim_end_matches('/')
    }

    /// Whether it is a bucket.
    #[must_use]
    pub fn is_bucket(&self) -> bool {
        self.url.starts_with("s3://")
    }
}

/// What is wrong with these upstreams. A URL is not shown where it may contain a password.
pub(super) fn refused(upstreams: &[BlossomUpstream]) -> Vec<String> {
    let mut refused = Vec::new();
    for (place, upstream) in upstreams.iter().enumerate() {
        let number = place + 1;
        let Ok(url) = Url::parse(&upstream.url) else {
            refused.push(format!("upstream {number}: url: expected an https, http, file or s3 URL"));
            continue;
        };
        if !is_plain(&url) {
            refused.push(format!(
                "upstream {number}: url: expected a URL without user, password, query and fragment"
            ));
            continue;
        }
        let shown = upstream.name();
        if upstream.url.len() > URL_BYTES_MAX {
            refused.push(format!("upstream {number}: url: at most {URL_BYTES_MAX} bytes"));
        }
        if upstreams[..place].iter().any(|other| other.name() == shown) {
            refused.push(format!("`{shown}`: named twice"));
        }
        let kind = url.scheme();
        match kind {
            // A blob is at the root of its host.
            "http" | "https" if url.path() != "/" => {
                refused.push(format!("`{shown}`: expected a URL without a path"));
            }
            "file" if url.host_str().is_some_and(|host| !host.is_empty()) || url.path() == "/" => {
                refused.push(format!("`{shown}`: expected such as file:///var/lib/blobs"));
            }
            "s3" if url.host_str().is_none_or(str::is_empty) => {
                refused.push(format!("`{shown}`: expected such as s3://bucket/prefix"));
            }
            "http" | "https" | "file" | "s3" => {}
            _ => refused.push(format!("`{shown}`: expected an https, http, file or s3 URL")),
        }
        let is_server = matches!(kind, "http" | "https");
        let servers = [
            ("alternative_address", upstream.alternative_address.is_some()),
            ("supports_mirror", upstream.supports_mirror),
            ("supports_upload_head", upstream.supports_upload_head),
            ("sign", upstream.sign),
        ];
        let buckets =
            [("s3_endpoint", upstream.s3_endpoint.is_some()), ("s3_region", upstream.s3_region.is_some())];
        for (key, _) in servers.iter().filter(|(_, is_set)| *is_set && !is_server) {
            refused.push(format!("`{shown}`: {key} is for servers"));
        }
        for (key, _) in buckets.iter().filter(|(_, is_set)| *is_set && kind != "s3") {
            refused.push(format!("`{shown}`: {key} is for buckets"));
        }
        if kind == "s3" && upstream.s3_endpoint.is_none() && upstream.s3_region.is_none() {
            refused.push(format!(
                "`{shown}`: without s3_endpoint the region of the bucket is needed (s3_region)"
            ));
        }
        for (key, text) in
            [("alternative_address", &upstream.alternative_address), ("s3_endpoint", &upstream.s3_endpoint)]
        {
            let is_web =
                |url: Url| matches!(url.scheme(), "http" | "https") && is_plain(&url) && url.path() == "/";
            if text.as_ref().is_some_and(|text| !Url::parse(text).is_ok_and(is_web)) {
                refused.push(format!(
                    "`{shown}`: {key}: expected an http or https URL without user, path and query"
                ));
            }
        }
    }
    refused
}

fn is_plain(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(text: &serde_json::Value) -> Vec<BlossomUpstream> {
        serde_json::from_value(text.clone()).unwrap()
    }

    #[test]
    fn upstreams_of_every_kind_are_accepted_and_a_slash_at_the_end_is_no_part_of_the_name() {
        let upstreams = of(&json!([
            {"url": "https://blossom.example.com/", "priority": 1, "alternative_address": "https://10.0.0.5", "sign": true},
            {"url": "http://localhost:3000"},
            {"url": "file:///var/lib/blobs"},
            {"url": "s3://bucket/prefix", "s3_endpoint": "http://localhost:9000"},
        ]));
        assert_eq!(refused(&upstreams), Vec::<String>::new());
        assert_eq!(upstreams[0].name(), "https://blossom.example.com");
        assert!(upstreams[3].is_bucket() && !upstreams[2].is_bucket());
    }

    #[test]
    fn a_refused_upstream_is_named_and_a_password_is_not_shown() {
        for (upstream, reason) in [
            (json!({"url": "no"}), "upstream 1: url: expected an https, http, file or s3 URL"),
            (json!({"url": "https://u:secret@h"}), "upstream 1: url: expected a URL without user"),
            (json!({"url": "ftp://h"}), "expected an https, http, file or s3 URL"),
            (json!({"url": "https://h/path"}), "without a path"),
            (json!({"url": "file:///"}), "expected such as file:///var/lib/blobs"),
            (json!({"url": "s3://b"}), "s3_region"),
            (json!({"url": "file:///b", "supports_mirror": true}), "supports_mirror is for servers"),
            (json!({"url": "https://h", "s3_region": "x"}), "s3_region is for buckets"),
            (json!({"url": "https://h", "alternative_address": "10.0.0.5"}), "alternative_address"),
        ] {
            let found = refused(&of(&json!([upstream])));
            assert!(found.len() == 1 && found[0].contains(reason), "{upstream}: {found:?}");
            assert!(!found[0].contains("secret"));
        }
        let twice = refused(&of(&json!([{"url": "https://h"}, {"url": "https://h/"}])));
        assert_eq!(twice, ["`https://h`: named twice"]);
    }
}
