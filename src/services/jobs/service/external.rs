//! What the room uses besides PostgreSQL: the storage of files, the provider by which people log in, and the
//! receivers of webhooks.

use url::Url;

use crate::base::{Secret, WebhookKeys};
use crate::config::{JobFiles, JobLogin, JobWebhook, Jobs, ObjectKeys};
use crate::lifecycle::BoxError;
use crate::net::objects::{Bucket, BucketSettings, Folder, ObjectError, Objects};
use crate::net::oidc::{LoginError, Provider, ProviderSettings};
use crate::net::{Caller, Egress};
use crate::services::jobs::decide::Receiver;
use crate::services::jobs::edge::Login;
use crate::services::jobs::event::Status;

/// Secrets that are not settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Secrets<'a> {
    /// Keys of the bucket.
    pub object_keys: Option<&'a ObjectKeys>,
    /// The client's secret for the `OpenID` provider.
    pub oidc: Option<&'a Secret>,
    /// The keys by which webhooks are signed.
    pub webhooks: Option<&'a WebhookKeys>,
}

/// The storage, the login and the webhooks, each `None` if the settings name none.
#[derive(Debug, Default)]
pub struct External {
    /// Sources and outputs of jobs.
    pub objects: Option<Objects>,
    /// Login of people.
    pub login: Option<Login>,
    /// Receivers of webhooks.
    pub webhooks: Option<WebhookReceivers>,
}

/// Webhook receivers, and what is needed to call them.
#[derive(Debug)]
pub struct WebhookReceivers {
    /// The receivers; at least one.
    pub receivers: Vec<Receiver>,
    /// What webhooks are signed with.
    pub keys: WebhookKeys,
    /// The way to the receivers.
    pub caller: Caller,
}

impl External {
    /// Opens all of them. No server is contacted yet.
    ///
    /// # Errors
    /// When the bucket or the webhooks have no keys, the folder cannot be entered, or a URL in the settings is none.
    pub fn open(settings: &Jobs, secrets: &Secrets<'_>, outside: &Egress) -> Result<Self, BoxError> {
        let objects = open_objects(&settings.files, secrets.object_keys, outside)?;
        let login = open_login(&settings.oidc, secrets.oidc, outside)?;
        let webhooks = open_webhooks(&settings.webhooks, secrets.webhooks, outside)?;
        Ok(Self { objects, login, webhooks })
    }
}

/// Opens the storage of files; `None` if the settings name none.
///
/// # Errors
/// As [`External::open`].
pub fn open_objects(
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

fn open_webhooks(
    settings: &[JobWebhook],
    keys: Option<&WebhookKeys>,
    outside: &Egress,
) -> Result<Option<WebhookReceivers>, BoxError> {
    if settings.is_empty() {
        return Ok(None);
    }
    let keys = keys.ok_or("the keys by which webhooks are signed are missing")?.clone();
    let receivers = settings.iter().map(receiver).collect::<Result<_, _>>()?;
    Ok(Some(WebhookReceivers { receivers, keys, caller: outside.caller()? }))
}

fn receiver(settings: &JobWebhook) -> Result<Receiver, BoxError> {
    let status = |word: &String| Status::parse(word).ok_or("a status of a webhook is unknown");
    Ok(Receiver {
        name: settings.name.clone(),
        url: Url::parse(&settings.url)?,
        types: settings.types.clone(),
        statuses: settings.statuses.iter().map(status).collect::<Result<_, _>>()?,
        attempts_max: i32::try_from(settings.attempts_max.get())?,
    })
}
