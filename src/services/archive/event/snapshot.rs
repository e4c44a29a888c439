//! The snapshot of a relay, as recorded in `relay_metadata` with `nip11` and `nip66`.

use serde::Serialize;
use serde_json::{Map, Value};

/// One snapshot of a relay: its information document (NIP-11) and the results of the checks (NIP-66).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// Time of the checks, unix seconds; always later than the relay's previous snapshot.
    pub generated_at: i64,
    /// The information document; `None` when it could not be fetched.
    pub nip11: Option<Map<String, Value>>,
    /// Whether a WebSocket could be opened.
    #[serde(rename = "openable")]
    pub is_openable: bool,
    /// Whether a REQ was answered with events or EOSE.
    #[serde(rename = "readable")]
    pub is_readable: bool,
    /// Whether an event was accepted and could be read back; `None` when this was not tested.
    #[serde(rename = "writable")]
    pub is_writable: Option<bool>,
    /// Milliseconds until the WebSocket was open, if it was.
    pub rtt_open: Option<i32>,
    /// Milliseconds until the REQ was answered, if it was.
    pub rtt_read: Option<i32>,
    /// Milliseconds until the event was accepted, if it was.
    pub rtt_write: Option<i32>,
    /// Remaining TTL of the DNS answer in seconds.
    pub dns_ttl: Option<i32>,
    /// Further checks by name (`nip11`, `auth`, `dns`, `tls`, `http`, `geo`, `net`), and `failures` by check.
    pub detail: Map<String, Value>,
}

impl Snapshot {
    /// The results as the argument of the procedure `insert_relay_metadata_batch`.
    #[must_use]
    pub fn nip66(&self) -> Value {
        let mut all = self.detail.clone();
        let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
        put("openable", self.is_openable.into());
        put("readable", self.is_readable.into());
        put("writable", self.is_writable.into());
        put("rtt_open", self.rtt_open.into());
        put("rtt_read", self.rtt_read.into());
        put("rtt_write", self.rtt_write.into());
        put("dns_ttl", self.dns_ttl.into());
        Value::Object(all)
    }

    /// The reason why a check failed; `None` if it succeeded or was not made.
    #[must_use]
    pub fn failure(&self, check: &str) -> Option<&str> {
        self.detail.get("failures")?.get(check)?.get("reason")?.as_str()
    }
}
