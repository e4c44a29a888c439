//! Where the queue of jobs is, and the credential for it.

use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use url::Url;

use super::client::Server;
use crate::app::instance;
use crate::base::Secret;
use crate::cli::Context;
use crate::cli::exposure::is_exposed;
use crate::config::DatabaseEnv;
use crate::net::Egress;
use crate::telemetry::notice;

/// The address of `quipu run jobs`, which is BlobForge's.
const DEFAULT: &str = "http://127.0.0.1:8080";

/// The server of jobs, and a token for it.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ServerArgs {
    /// The server's URL. Without it: the variable `QUIPU_JOBS_URL` or `BLOBFORGE_SERVER_URL`, the instance on
    /// `--data`, or `http://127.0.0.1:8080` where no data folder is named and none is there.
    #[arg(long, short, global = true, value_name = "URL")]
    server: Option<Url>,
    /// An API token. Prefer the variable `QUIPU_JOBS_TOKEN` or `BLOBFORGE_API_TOKEN`: other users of the
    /// machine can see arguments. Programs on the server's machine may need none.
    #[arg(long, short, global = true, value_name = "TOKEN", value_parser = secret)]
    token: Option<Secret>,
}

#[expect(clippy::unnecessary_wraps, reason = "clap requires a value parser that returns a Result")]
pub(super) fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

impl ServerArgs {
    /// A client with the API token, if there is one.
    pub(super) fn open(&self, context: &Context) -> Result<Server> {
        let token = self.token.as_ref().or(context.configuration.job_client.token.as_ref());
        let headers = token.map(|token| ("authorization", bearer(token)));
        self.connect(context, headers.into_iter().collect())
    }

    /// A client with a worker's own secret, or else with the API token.
    pub(super) fn open_as(&self, context: &Context, worker: &str, secret: Option<Secret>) -> Result<Server> {
        let secret = secret.or_else(|| context.configuration.job_client.worker_secret.clone());
        match secret {
            // A token on the command line is meant; the secret may be in the environment for another worker.
            Some(secret) if self.token.is_none() => {
                let id = ("x-worker-id", Secret::new(worker));
                self.connect(context, vec![id, ("x-worker-secret", secret)])
            }
            _ => self.open(context),
        }
    }

    fn connect(&self, context: &Context, headers: Vec<(&'static str, Secret)>) -> Result<Server> {
        let url = self.url(context)?;
        if !headers.is_empty() && is_exposed(&url) {
            notice(format_args!(
                "quipu: the credential is sent to {url} unencrypted; use https:// if the server offers it"
            ));
        }
        let outside = Egress::new(&context.configuration.settings.networks).context("networks")?;
        Ok(Server::new(outside.caller().context("networks")?, url, headers))
    }

    fn url(&self, context: &Context) -> Result<Url> {
        let (url, from) = if let Some(url) = &self.server {
            (url.clone(), "--server")
        } else if let Some((name, text)) = &context.configuration.job_client.url {
            let url = Url::parse(text).with_context(|| format!("{name}: `{text}` is not a URL"))?;
            (url, *name)
        } else {
            let configuration = &context.configuration;
            let address = address_on(&context.data, context.names_data(), &configuration.database)
                .context("neither --server nor QUIPU_JOBS_URL names a server")?;
            let (text, from) = match address {
                Some(address) => (format!("http://{address}"), "instance.json"),
                None => (DEFAULT.to_owned(), "the default"),
            };
            (Url::parse(&text).with_context(|| format!("{from}: `{text}` is not a URL"))?, from)
        };
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            bail!("{from}: `{url}` is not the URL of a server: expected http://host or https://host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            bail!("{from}: the URL contains a user name or password: give a token with --token");
        }
        Ok(url)
    }
}

/// The address of jobs of the instance on `data`; `None` without one, so that the default is meant. Where the folder was
/// named or holds the database of an instance, that instance is meant, and no other program at the default.
fn address_on(data: &Path, is_named: bool, environment: &DatabaseEnv) -> Result<Option<String>> {
    match instance::running(data) {
        Ok(instance) => Ok(instance.services.get("jobs").cloned()),
        Err(error) => {
            let source = error.downcast_ref::<io::Error>();
            let is_absent = source.is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
            let is_meant = is_named || instance::own_database(data, environment).is_some();
            if is_absent && !is_meant { Ok(None) } else { Err(error) }
        }
    }
}

fn bearer(token: &Secret) -> Secret {
    Secret::new(format!("Bearer {}", token.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_instance_the_default_is_meant_only_where_no_folder_points_to_one() {
        let folder = tempfile::tempdir().unwrap();
        let environment = DatabaseEnv::default();
        let address = |is_named| address_on(folder.path(), is_named, &environment);
        assert_eq!(address(false).unwrap(), None);
        let said = address(true).unwrap_err().to_string();
        assert!(said.contains(&format!("no instance runs on {}", folder.path().display())), "{said}");

        std::fs::create_dir(folder.path().join("postgres")).unwrap();
        assert!(address(false).unwrap_err().to_string().contains("no instance runs on"));
        std::fs::write(instance::Instance::path(folder.path()), "{").unwrap();
        assert!(address(false).unwrap_err().to_string().contains("is damaged"));
    }
}
