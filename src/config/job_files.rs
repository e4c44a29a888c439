//! Section `services.jobs.files`.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::Blossom;
use super::environment::{BLOB_KEYS, Environment, OBJECT_KEYS};
use super::layer::{ENVIRONMENT, Problem};
use crate::base::Secret;

/// The bucket when only `BLOBFORGE_S3_ENDPOINT` is set, as in the original.
const BUCKET: &str = "blobforge";

/// Longest lifetime of a signed URL, seconds: `SigV4` allows no more.
const LIFETIME_S_MAX: u32 = 604_800;

/// Largest file, bytes: S3 allows 5 TiB.
const FILE_BYTES_MAX: u64 = 5 << 40;

/// Longest time for an upload, seconds.
const UPLOAD_S_MAX: u32 = 86_400;

/// Section `services.jobs.files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JobFiles {
    /// Folder for files while no bucket is named, created if missing. Without a value `objects` in the data
    /// folder. All processes need the same folder.
    #[schemars(extend("format" = "path"))]
    pub folder: Option<PathBuf>,
    /// Bucket for files, on S3 or a server with its protocol. The variable `BLOBFORGE_S3_BUCKET` sets it too;
    /// with `BLOBFORGE_S3_ENDPOINT` alone it is `blobforge`.
    pub s3_bucket: Option<String>,
    /// URL of the server, `http://…` or `https://…`; without a value Amazon's. The variable
    /// `BLOBFORGE_S3_ENDPOINT` sets it too.
    pub s3_endpoint: Option<String>,
    /// Region; `auto` is for servers without regions, and refused without `s3_endpoint`. The variable
    /// `BLOBFORGE_S3_REGION` sets it too.
    pub s3_region: String,
    /// Prefix of all keys in the bucket. The variable `BLOBFORGE_S3_PREFIX` sets it too.
    pub s3_prefix: Option<String>,
    /// URL by which clients reach this listener, for links to files in `folder`, such as
    /// `https://jobs.example.com`. Without a value the links name the `Host` that the client has sent, with
    /// `http`.
    pub url: Option<String>,
    /// Time for which a signed URL is valid.
    #[schemars(range(max = LIFETIME_S_MAX))]
    pub url_lifetime_s: NonZeroU32,
    /// Largest file.
    #[schemars(range(max = FILE_BYTES_MAX))]
    pub file_bytes_max: NonZeroU64,
    /// Time for one upload to this listener, in place of `http.request_timeout_s`; nothing of it may pause for
    /// longer than `http.body_timeout_s`.
    #[schemars(range(max = UPLOAD_S_MAX))]
    pub upload_timeout_s: NonZeroU32,
    /// Uploads to this listener at the same time; a further one gets 503.
    pub uploads_max: NonZeroUsize,
    /// Whether a claim is answered with an `upload_url`, as the original does. It is valid for the output of this
    /// lease alone, and has no exact length. New workers ask for a URL right before the upload.
    pub compat_claim_upload_url: bool,
}

impl Default for JobFiles {
    fn default() -> Self {
        Self {
            folder: None,
            s3_bucket: None,
            s3_endpoint: None,
            s3_region: "auto".to_owned(),
            s3_prefix: None,
            url: None,
            url_lifetime_s: nonzero!(NonZeroU32, 3_600),
            file_bytes_max: nonzero!(NonZeroU64, 5_368_709_120),
            upload_timeout_s: nonzero!(NonZeroU32, 3_600),
            uploads_max: nonzero!(NonZeroUsize, 32),
            compat_claim_upload_url: true,
        }
    }
}

impl JobFiles {
    /// The bucket for files; `None` if they are in a folder.
    #[must_use]
    pub fn bucket(&self) -> Option<&str> {
        let named = self.s3_bucket.as_deref().filter(|name| !name.is_empty());
        named.or_else(|| self.s3_endpoint.is_some().then_some(BUCKET))
    }

    /// Values that are refused although their types allow them, by key.
    pub(super) fn refused(&self) -> Vec<(&'static str, String)> {
        let mut refused = Vec::new();
        let mut check = |is_good: bool, key, reason: String| {
            if !is_good {
                refused.push((key, reason));
            }
        };
        for (key, value, most) in [
            ("files.url_lifetime_s", self.url_lifetime_s, LIFETIME_S_MAX),
            ("files.upload_timeout_s", self.upload_timeout_s, UPLOAD_S_MAX),
        ] {
            check(value.get() <= most, key, format!("{value}: at most {most}"));
        }
        let bytes = self.file_bytes_max.get();
        let most = FILE_BYTES_MAX;
        check(bytes <= most, "files.file_bytes_max", format!("{bytes}: at most {most}"));
        for (key, url) in [("files.s3_endpoint", &self.s3_endpoint), ("files.url", &self.url)] {
            let Some(text) = url else { continue };
            // Not shown: it may contain a password.
            let is_plain = |url: Url| {
                matches!(url.scheme(), "http" | "https")
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.query().is_none()
            };
            let expected = "expected an http or https URL without user, password and query".to_owned();
            check(Url::parse(text).is_ok_and(is_plain), key, expected);
        }
        let has_region = self.s3_endpoint.is_some() || self.bucket().is_none() || self.s3_region != "auto";
        check(
            has_region,
            "files.s3_region",
            "without s3_endpoint the region of the bucket is needed".to_owned(),
        );
        refused
    }
}

/// The keys of the bucket.
#[derive(Debug, Clone)]
pub struct ObjectKeys {
    /// `BLOBFORGE_S3_ACCESS_KEY`.
    pub access_key: Secret,
    /// `BLOBFORGE_S3_SECRET_KEY`.
    pub secret_key: Secret,
}

impl ObjectKeys {
    /// The keys in the environment; `None` if neither is set.
    ///
    /// # Errors
    /// When one of the two is missing, or both while a bucket is named.
    pub(super) fn read(environment: &Environment, files: &JobFiles) -> Result<Option<Self>, Problem> {
        Self::of(environment, OBJECT_KEYS, files.bucket().is_some(), "the bucket of services.jobs.files")
    }

    /// The keys of the buckets among the upstreams of blobs; `None` if neither is set.
    ///
    /// # Errors
    /// When one of the two is missing, or both while an upstream is a bucket.
    pub(super) fn read_blossom(
        environment: &Environment,
        blossom: &Blossom,
    ) -> Result<Option<Self>, Problem> {
        let has_bucket = blossom.upstreams.iter().any(super::BlossomUpstream::is_bucket);
        Self::of(environment, BLOB_KEYS, has_bucket, "a bucket of services.blossom.upstreams")
    }

    fn of(
        environment: &Environment,
        names: [&str; 2],
        has_bucket: bool,
        user: &str,
    ) -> Result<Option<Self>, Problem> {
        let [access, secret] = names.map(|name| environment.get(name).map(Secret::new));
        let missing = |place: usize| Problem {
            source: ENVIRONMENT.into(),
            key: names[place].to_owned(),
            reason: format!("must be set: {user} needs both keys"),
        };
        match (access, secret) {
            (Some(access_key), Some(secret_key)) => Ok(Some(Self { access_key, secret_key })),
            (None, None) if !has_bucket => Ok(None),
            (None, _) => Err(missing(0)),
            (Some(_), None) => Err(missing(1)),
        }
    }
}
