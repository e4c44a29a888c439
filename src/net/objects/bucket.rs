//! An S3 bucket, or one of a server that speaks its protocol: presigned URLs and multipart uploads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::signer::{HeaderName, HeaderValue, Method, SignedUrlOptions, Signer as _};
use object_store::{Attribute, Attributes, ClientOptions, ObjectStore, PutMultipartOptions, RetryConfig};

use super::folder::STAGING;
use super::{ObjectError, of, path};
use crate::base::Secret;
use crate::net::Egress;

/// Repetitions of a failed request, and the time for all of them: a caller has a time limit of its own.
const RETRIES_MAX: usize = 3;
const RETRY_TIME: Duration = Duration::from_secs(10);

/// The header by which S3 checks an upload, Base64 of the SHA-256.
pub(super) const CHECKSUM: &str = "x-amz-checksum-sha256";

/// Which bucket, and how to log in.
#[derive(Debug, Clone, Copy)]
pub struct BucketSettings<'a> {
    /// Name of the bucket.
    pub bucket: &'a str,
    /// URL of the server; `None` for Amazon's.
    pub endpoint: Option<&'a str>,
    /// Region; `auto` for servers without regions.
    pub region: &'a str,
    /// Prefix of all keys; empty for none.
    pub prefix: &'a str,
    /// Access key.
    pub access_key: &'a Secret,
    /// Secret key.
    pub secret_key: &'a Secret,
}

/// A bucket. Clones share the connections.
#[derive(Clone)]
pub struct Bucket(Arc<Inner>);

struct Inner {
    store: AmazonS3,
    prefix: String,
}

/// The library prints its configuration, so only the name is shown.
impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.store)
    }
}

/// Gives the library a client that dials as all others of this program do.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

impl Bucket {
    /// Opens a bucket. Sends nothing yet.
    ///
    /// # Errors
    /// [`ObjectError::Settings`].
    pub fn open(settings: BucketSettings<'_>, outside: &Egress) -> Result<Self, ObjectError> {
        let failed = |problem: String| ObjectError::Settings(problem);
        let client = outside.storage_client().map_err(|error| failed(error.to_string()))?;
        let retry =
            RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIME, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(settings.bucket)
            .with_region(settings.region)
            .with_access_key_id(settings.access_key.expose())
            .with_secret_access_key(settings.secret_key.expose())
            .with_retry(retry)
            .with_http_connector(Connector(client));
        if let Some(endpoint) = settings.endpoint {
            // Without this the library refuses http, which a server on this machine or network speaks.
            builder = builder.with_endpoint(endpoint.trim_end_matches('/')).with_allow_http(true);
        }
        let store = builder.build().map_err(|error| failed(error.to_string()))?;
        let prefix = settings.prefix.trim_matches('/').to_owned();
        let bucket = Self(Arc::new(Inner { store, prefix }));
        bucket.path("sources").map_err(|_| failed("the prefix is not a path".to_owned()))?;
        Ok(bucket)
    }

    pub(super) fn store(&self) -> &dyn ObjectStore {
        &self.0.store
    }

    pub(super) fn path(&self, key: &str) -> Result<Path, ObjectError> {
        match self.0.prefix.as_str() {
            "" => path(key),
            prefix => path(&format!("{prefix}/{key}")),
        }
    }

    /// A URL by which the object can be read for `lifetime`.
    ///
    /// # Errors
    /// When the key is no path, or signing fails.
    pub async fn sign_get(&self, key: &str, lifetime: Duration) -> Result<String, ObjectError> {
        self.sign(Method::GET, key, lifetime, SignedUrlOptions::new()).await
    }

    /// A URL by which the object can be uploaded for `lifetime` with these headers, which are signed: the content
    /// type, and the SHA-256 if it is given. S3 has no signed length; with the SHA-256 no other content is
    /// accepted. Returns the headers that the uploader has to send.
    ///
    /// # Errors
    /// As [`Bucket::sign_get`].
    pub async fn sign_put(
        &self,
        key: &str,
        content_type: &str,
        sha256: Option<[u8; 32]>,
        lifetime: Duration,
    ) -> Result<(String, Vec<(&'static str, String)>), ObjectError> {
        let mut headers = vec![("content-type", content_type.to_owned())];
        headers.extend(sha256.map(|sha256| (CHECKSUM, STANDARD.encode(sha256))));
        let mut options = SignedUrlOptions::new();
        for (name, value) in &headers {
            let value = HeaderValue::from_str(value);
            let value =
                value.map_err(|_| ObjectError::Refused("the content type is no header".to_owned()))?;
            options = options.with_signed_header(HeaderName::from_static(name), value);
        }
        Ok((self.sign(Method::PUT, key, lifetime, options).await?, headers))
    }

    /// The key under which an upload for `key` goes that is not wanted: one for each key, which nothing reads. A lifecycle
    /// rule for `staging/` deletes it.
    #[must_use]
    pub fn discarded_key(key: &str) -> String {
        format!("{STAGING}/discarded/{key}")
    }

    /// A URL by which one part, from 1, of a multipart upload can be uploaded.
    ///
    /// # Errors
    /// As [`Bucket::sign_get`].
    pub async fn sign_part(
        &self,
        key: &str,
        upload: &str,
        part: u32,
        lifetime: Duration,
    ) -> Result<String, ObjectError> {
        let query = [("partNumber", part.to_string()), ("uploadId", upload.to_owned())];
        self.sign(Method::PUT, key, lifetime, SignedUrlOptions::new().with_query(query)).await
    }

    async fn sign(
        &self,
        method: Method,
        key: &str,
        lifetime: Duration,
        options: SignedUrlOptions,
    ) -> Result<String, ObjectError> {
        let path = self.path(key)?;
        let url = self.0.store.signed_url_opts(method, &path, lifetime, &options).await;
        url.map(String::from).map_err(|error| of(&error))
    }

    /// Begins a multipart upload, and returns its id.
    ///
    /// # Errors
    /// When the storage does not answer, or refuses.
    pub async fn begin_multipart(&self, key: &str, content_type: &str) -> Result<String, ObjectError> {
        let attributes = Attributes::from_iter([(Attribute::ContentType, content_type.to_owned())]);
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        let id = self.0.store.create_multipart_opts(&self.path(key)?, options).await;
        id.map_err(|error| of(&error))
    }

    /// Makes the object of its parts, in order, each named by the `ETag` that its upload was answered with.
    ///
    /// # Errors
    /// As [`Bucket::begin_multipart`].
    pub async fn complete_multipart(
        &self,
        key: &str,
        upload: &str,
        etags: Vec<String>,
    ) -> Result<(), ObjectError> {
        let parts = etags.into_iter().map(|content_id| PartId { content_id }).collect();
        let made = self.0.store.complete_multipart(&self.path(key)?, &upload.to_owned(), parts).await;
        made.map(|_| ()).map_err(|error| of(&error))
    }

    /// Gives up a multipart upload, and deletes its parts.
    ///
    /// # Errors
    /// As [`Bucket::begin_multipart`].
    pub async fn abort_multipart(&self, key: &str, upload: &str) -> Result<(), ObjectError> {
        let aborted = self.0.store.abort_multipart(&self.path(key)?, &upload.to_owned()).await;
        super::found(aborted).map(|_| ())
    }
}
