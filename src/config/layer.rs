//! One source of settings: a YAML file, the environment, or `--set`. Every value remembers its source, so
//! that a problem can name file and key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Error, Metadata, Profile, Provider};

use super::blossom_original;

/// One reason why the configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, `environment`, or `--set`.
    pub source: String,
    /// The key with its sections, spelled as in the source; empty if the problem concerns the whole source.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.source, self.reason),
            key => write!(f, "{}: {key}: {}", self.source, self.reason),
        }
    }
}

/// Prefix of the environment variables that are settings.
const PREFIX: &str = "QUIPU__";

/// The variables of BlobForge that are settings of the room `jobs`.
const BLOBFORGE: [(&str, &str); 3] = [
    ("BLOBFORGE_WORKER_TIMEOUT", "services.jobs.worker_timeout_s"),
    ("BLOBFORGE_MAX_ATTEMPTS", "services.jobs.attempts_max"),
    ("BLOBFORGE_LOG_LEVEL", "log.level"),
];

/// Those that are texts, whatever they look like.
const BLOBFORGE_TEXTS: [(&str, &str); 8] = [
    ("BLOBFORGE_S3_BUCKET", "services.jobs.files.s3_bucket"),
    ("BLOBFORGE_S3_ENDPOINT", "services.jobs.files.s3_endpoint"),
    ("BLOBFORGE_S3_REGION", "services.jobs.files.s3_region"),
    ("BLOBFORGE_S3_PREFIX", "services.jobs.files.s3_prefix"),
    ("BLOBFORGE_OIDC_ISSUER", "services.jobs.oidc.issuer"),
    ("BLOBFORGE_OIDC_CLIENT_ID", "services.jobs.oidc.client_id"),
    ("BLOBFORGE_OIDC_REDIRECT_URL", "services.jobs.oidc.redirect_url"),
    ("BLOBFORGE_OIDC_GROUPS_CLAIM", "services.jobs.oidc.groups_claim"),
];

/// The variables of BlobForge that are lists, separated by commas.
const BLOBFORGE_LISTS: [(&str, &str); 2] = [
    ("BLOBFORGE_OIDC_ALLOWED_GROUPS", "services.jobs.oidc.allowed_groups"),
    ("BLOBFORGE_OIDC_ADMIN_GROUPS", "services.jobs.oidc.admin_groups"),
];

/// The variable of BlobForge for its port.
const BLOBFORGE_PORT: &str = "BLOBFORGE_PORT";

/// Source name of the environment.
pub(super) const ENVIRONMENT: &str = "environment";

/// Settings of one source, not yet checked against the known keys.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    source: String,
    dict: Dict,
}

impl Layer {
    /// Parses a YAML text. `under` is the section that it fills, such as `services.projector`; empty for the
    /// root. A key without a value counts as absent.
    pub(super) fn yaml(source: &str, under: &str, text: &str) -> Result<Self, Problem> {
        let parsed = parsed(source, text)?;
        let mut dict = Dict::new();
        put(&mut dict, under, Value::from(parsed));
        Ok(Self { source: source.to_owned(), dict })
    }

    /// Parses a file that the command line names: settings of Quipu with their sections, or those of Blossom
    /// Espelhator.
    pub(super) fn named_file(path: &Path) -> Result<Self, Problem> {
        let source = path.display().to_string();
        let problem = |key: String, reason: String| Problem { source: source.clone(), key, reason };
        let text = std::fs::read_to_string(path)
            .map_err(|error| problem(String::new(), format!("cannot be read: {error}")))?;
        let mut dict = parsed(&source, &text)?;
        if blossom_original::is_original(&dict) {
            let settings =
                blossom_original::translated(dict).map_err(|(key, reason)| problem(key, reason))?;
            dict = Dict::new();
            put(&mut dict, "services.blossom", Value::from(settings));
        }
        Ok(Self { source, dict })
    }

    /// Reads the variables `QUIPU__SECTION__KEY`, `QUIPU_POOLER` as another name of `QUIPU__DATABASE__POOLER`,
    /// and the variables of BlobForge. An empty variable counts as unset.
    pub(super) fn environment(variables: &BTreeMap<String, String>) -> Self {
        let mut dict = Dict::new();
        if let Some(pooler) = variables.get("QUIPU_POOLER").filter(|value| !value.is_empty()) {
            put(&mut dict, "database.pooler", scalar(pooler));
        }
        for (name, key) in BLOBFORGE {
            if let Some(value) = variables.get(name).filter(|value| !value.is_empty()) {
                put(&mut dict, key, scalar(value));
            }
        }
        for (name, key) in BLOBFORGE_TEXTS {
            if let Some(value) = variables.get(name).filter(|value| !value.is_empty()) {
                put(&mut dict, key, Value::from(value.clone()));
            }
        }
        for (name, key) in BLOBFORGE_LISTS {
            if let Some(list) = variables.get(name).filter(|value| !value.is_empty()) {
                let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
                put(&mut dict, key, Value::from(words.map(str::to_owned).collect::<Vec<_>>()));
            }
        }
        // The original listens on all addresses; Quipu does so only if it is told the address.
        if let Some(port) = variables.get(BLOBFORGE_PORT).filter(|port| !port.is_empty()) {
            put(&mut dict, "services.jobs.address", Value::from(format!("127.0.0.1:{port}")));
        }
        for (name, value) in variables {
            if let Some(key) = name.strip_prefix(PREFIX).filter(|_| !value.is_empty()) {
                put(&mut dict, &key.to_ascii_lowercase().replace("__", "."), scalar(value));
            }
        }
        Self { source: ENVIRONMENT.to_owned(), dict }
    }

    /// Parses the `section.key=value` arguments of `--set`; returns a problem for each that is none.
    pub(super) fn overrides(texts: &[String]) -> (Self, Vec<Problem>) {
        let (mut dict, mut problems) = (Dict::new(), Vec::new());
        for text in texts {
            match text.split_once('=').filter(|(key, _)| !key.trim().is_empty()) {
                Some((key, value)) => put(&mut dict, key.trim(), scalar(value)),
                None => problems.push(Problem {
                    source: "--set".to_owned(),
                    key: text.clone(),
                    reason: "expected `section.key=value`".to_owned(),
                }),
            }
        }
        (Self { source: "--set".to_owned(), dict }, problems)
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        let is_environment = self.source == ENVIRONMENT;
        Metadata::named(self.source.clone()).interpolater(move |_, path| {
            if is_environment {
                format!("{PREFIX}{}", path.join("__").to_ascii_uppercase())
            } else {
                path.join(".")
            }
        })
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// Parses a YAML text. A key without a value counts as absent.
fn parsed(source: &str, text: &str) -> Result<Dict, Problem> {
    // Without the snippet of the source: a problem is one line.
    let options = serde_saphyr::options! { with_snippet: false };
    let parsed: Option<Dict> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| Problem {
            source: source.to_owned(),
            key: String::new(),
            reason: format!("not readable as YAML: {error}"),
        })?;
    Ok(without_empty(parsed.unwrap_or_default()))
}

/// Parses a number, a boolean, or a list or section in brackets, which is YAML or JSON as in a file; anything else is a
/// string.
fn scalar(text: &str) -> Value {
    let text = text.trim();
    if text.starts_with(['[', '{'])
        && let Ok(value) = serde_saphyr::from_str::<Value>(text)
    {
        return value;
    }
    match text.parse::<Value>() {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

/// Inserts `value` at the dotted `key`, creating sections as needed. An empty key means the root.
fn put(dict: &mut Dict, key: &str, value: Value) {
    match (key.split_once('.'), value) {
        (None, Value::Dict(_, inner)) if key.is_empty() => dict.extend(inner),
        (None, value) => drop(dict.insert(key.to_owned(), value)),
        (Some((section, rest)), value) => {
            let inner = dict.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if !matches!(inner, Value::Dict(..)) {
                *inner = Value::from(Dict::new());
            }
            if let Value::Dict(_, inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

fn without_empty(dict: Dict) -> Dict {
    let keep = |(key, value)| match value {
        Value::Empty(..) => None,
        Value::Dict(tag, inner) => Some((key, Value::Dict(tag, without_empty(inner)))),
        other => Some((key, other)),
    };
    dict.into_iter().filter_map(keep).collect()
}
