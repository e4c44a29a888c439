//! What the room uses besides PostgreSQL: the storage of files, and the provider by which people log in.

use url::Url;

use crate::base::Secret;
use crate::config::{JobFiles, JobLogin, Jobs, ObjectKeys};
use crate::lifecycle::BoxError;
use crate::net::Egress;
use crate::net::objects::{Bucket, BucketSettings, Folder, ObjectError, Objects};
use crate::net::oidc::{LoginError, Provider, ProviderSettings};
use crate::services::jobs::edge::Login;

/// Secrets that are not settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Secrets<'a> {
    /// Keys of the bucket.
    pub object_keys: Option<&'a ObjectKeys>,
    /// The client's secret for the `OpenID` provider.
    pub oidc: Option<&'a Secret>,
}

/// The storage and the login, each `None` if the settings name none.
#[derive(Debug, Default)]
pub struct External {
    /// Sources and outputs of jobs.
    pub objects: Option<Objects>,
    /// Login of people.
    pub login: Option<Login>,
}

impl External {
    /// Opens both. The bucket and the provider are not asked yet.
    ///
    /// # Errors
    /// When the bucket has no keys, the folder cannot be entered, or a URL in the settings is none.
    pub fn open(settings: &Jobs, secrets: &Secrets<'_>, outside: &Egress) -> Result<Self, BoxError> {
        let objects = open_objects(&settings.files, secrets.object_keys, outside)?;
        let login = open_login(&settings.oidc, secrets.oidc, outside)?;
        Ok(Self { objects, login })
    }
}

fn open_objects(
    files: &JobFiles,
    keys: Option<&ObjectKeys>,
    outside: &Egress,
) -> Result<Option<Objects>, ObjectError> {
    if let Some(bucket) = files.bucket() {
        let missing = || ObjectError::Settings("the keys of the bucket are missing".to_owned());
        let ObjectKeys { access_key, secret_key } = keys.ok_or_else(missing)?;
        let settings = BucketSettings {
            bucket,
            endpoint: files.s3_endpoint.as_deref(),
            region: &files.s3_region,
            prefix: files.s3_prefix.as_deref().unwrap_or_default(),
            access_key,
            secret_key,
        };
        return Bucket::open(settings, outside).map(|bucket| Some(Objects::Bucket(bucket)));
    }
    let folder = files.folder.as_deref().map(Folder::open).transpose()?;
    Ok(folder.map(Objects::Folder))
}

fn open_login(
    settings: &JobLogin,
    secret: Option<&Secret>,
    outside: &Egress,
) -> Result<Option<Login>, LoginError> {
    let Some(issuer) = settings.issuer.clone() else { return Ok(None) };
    let redirect_url = settings.redirect_url.clone().unwrap_or_default();
    let origin = Url::parse(&redirect_url).map_err(|error| LoginError::Provider(error.to_string()))?;
    let provider = ProviderSettings {
        issuer,
        client_id: settings.client_id.clone().unwrap_or_default(),
        secret: secret.cloned(),
        redirect_url,
        scopes: settings.scopes.clone(),
        groups_claim: settings.groups_claim.clone(),
    };
    let provider = Provider::new(provider, outside.clone())?;
    Ok(Some(Login::new(provider, settings.clone(), &origin)))
}
