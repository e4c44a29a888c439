//! The settings file of Blossom Espelhator, whose place `quipu run blossom` takes, as settings of Quipu.

use std::time::Duration;

use figment::value::{Dict, Value};

/// The section of its upstreams. Their keys are those of `services.blossom.upstreams`.
const UPSTREAMS: &str = "upstream_servers";

/// The section of everything else.
const SERVER: &str = "server";

/// Upstreams that have to take a blob where its file does not say it.
const MIN_UPLOAD_SERVERS: u32 = 2;

/// What a value of its file is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// As it is; 0 and an empty text count as absent.
    Same,
    /// An address. Go's `:8080` names no IP address and means all of them.
    Address,
    /// Nanoseconds, or a text such as `30s`.
    Time,
    /// Attempts after the first one.
    Retries,
}

/// Its keys in `server`, and those of `services.blossom`.
const KEYS: [(&str, &str, Kind); 15] = [
    ("listen_addr", "address", Kind::Address),
    ("min_upload_servers", "replicas_min", Kind::Same),
    ("redirect_strategy", "redirect_strategy", Kind::Same),
    ("download_redirect_strategy", "download_redirect_strategy", Kind::Same),
    ("base_url", "public_url", Kind::Same),
    ("timeout", "timeout_s", Kind::Time),
    ("min_upload_timeout", "upload_timeout_min_s", Kind::Time),
    ("max_upload_timeout", "upload_timeout_max_s", Kind::Time),
    ("max_retries", "attempts_max", Kind::Retries),
    ("max_failures", "failures_max", Kind::Same),
    ("max_goroutines", "tasks_max", Kind::Same),
    ("max_memory_bytes", "memory_bytes_max", Kind::Same),
    ("cache_ttl", "lookup_cache_s", Kind::Time),
    ("cache_max_size", "lookup_cache_max", Kind::Same),
    ("allowed_pubkeys", "allowed_pubkeys", Kind::Same),
];

/// Whether these are settings of Blossom Espelhator.
pub(super) fn is_original(file: &Dict) -> bool {
    file.contains_key(UPSTREAMS) || file.contains_key(SERVER)
}

/// Its settings as those of `services.blossom`.
///
/// # Errors
/// The key that has no meaning, and the reason.
pub(super) fn translated(mut file: Dict) -> Result<Dict, (String, String)> {
    let mut settings = Dict::new();
    settings.insert("replicas_min".to_owned(), Value::from(MIN_UPLOAD_SERVERS));
    if let Some(upstreams) = file.remove(UPSTREAMS) {
        settings.insert("upstreams".to_owned(), upstreams);
    }
    let server = match file.remove(SERVER) {
        None => Dict::new(),
        Some(Value::Dict(_, server)) => server,
        Some(_) => return Err((SERVER.to_owned(), "expected a section".to_owned())),
    };
    if let Some((key, _)) = file.pop_first() {
        return Err((key, "unknown key".to_owned()));
    }
    for (name, value) in server {
        let key = format!("{SERVER}.{name}");
        let Some((_, setting, kind)) = KEYS.iter().find(|(known, ..)| *known == name) else {
            return Err((key, "unknown key".to_owned()));
        };
        if value.to_u128() == Some(0) || value.as_str() == Some("") {
            continue;
        }
        let value = kind.translated(value).map_err(|reason| (key, reason))?;
        settings.insert((*setting).to_owned(), value);
    }
    Ok(settings)
}

impl Kind {
    fn translated(self, value: Value) -> Result<Value, String> {
        match self {
            Self::Same => Ok(value),
            Self::Address => {
                let text = value.as_str().ok_or("expected host:port")?;
                let port = |host: &str| text.strip_prefix(host).filter(|rest| rest.starts_with(':'));
                let address = match (port(""), port("localhost")) {
                    (Some(port), _) => format!("0.0.0.0{port}"),
                    (None, Some(port)) => format!("127.0.0.1{port}"),
                    (None, None) => text.to_owned(),
                };
                Ok(Value::from(address))
            }
            Self::Time => {
                let time = match (value.to_u128(), value.as_str()) {
                    (Some(nanoseconds), _) => u64::try_from(nanoseconds).ok().map(Duration::from_nanos),
                    (None, Some(text)) => humantime::parse_duration(text).ok(),
                    (None, None) => None,
                };
                let time = time.ok_or("expected a time such as 30s or 5m")?;
                // A setting in whole seconds, and never none.
                let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
                Ok(Value::from(seconds.max(1)))
            }
            Self::Retries => {
                let retries = value.to_u128().and_then(|retries| u32::try_from(retries).ok());
                let retries = retries.ok_or("expected a number")?;
                Ok(Value::from(retries.saturating_add(1)))
            }
        }
    }
}
