//! One database URL, parsed once, with the same meaning for both drivers and PgBouncer.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, Host};
use tokio_postgres::{Client, Config};
use url::{Url, form_urlencoded};

use super::Error;
use super::failure::{LOG_IN, Target};
use super::tls::{Tls, TlsParameters};
use crate::base::{Secret, with_causes};

/// Timeout of the TCP connection when the URL does not set `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A login that takes longer is logged. PostgreSQL makes logins wait while another session drops the database.
const LOGIN_SLOW: Duration = Duration::from_secs(5);

/// The database when the URL names none.
const DATABASE: &str = "quipu";

/// Parameters that sqlx understands; the other parameters are for tokio-postgres alone.
const SQLX_PARAMETERS: [&str; 6] = ["host", "port", "dbname", "user", "password", "options"];

/// The address of a PostgreSQL or PgBouncer, the role, and the parameters of the connection.
#[derive(Debug, Clone)]
pub struct Server {
    /// The URL without the TLS parameters.
    url: Url,
    /// The URL as given.
    given: Url,
    config: Config,
    tls: Tls,
}

impl Server {
    /// Parses a URL and reads the certificates that it names.
    ///
    /// # Errors
    /// [`Error::Url`] with the problem and what is accepted.
    pub fn parse(url: &Secret) -> Result<Self, Error> {
        let given = Url::parse(url.expose()).map_err(|error| Error::Url {
            url: "(hidden)".to_owned(),
            problem: format!("{error}; expected postgres://role:password@host:port/database"),
        })?;
        // Where the parts were not told apart, host and path may hold pieces of the password.
        check_parts(&given).map_err(|problem| Error::Url { url: "(hidden)".to_owned(), problem })?;
        let refuse = |problem: String| Error::Url { url: masked(&given), problem };
        let (url, parameters) = split(&given);
        // The parser's error names the parameter, never the password.
        let mut config: Config =
            url.as_str().parse().map_err(|error: tokio_postgres::Error| refuse(with_causes(&error)))?;
        if !matches!((config.get_hosts(), config.get_ports().len()), ([_], 0 | 1))
            || !config.get_hostaddrs().is_empty()
        {
            return Err(refuse("one host and one port are needed, and no hostaddr".to_owned()));
        }
        let over_socket = matches!(config.get_hosts(), [Host::Unix(_)]);
        let tls = if over_socket { Tls::disabled() } else { Tls::resolve(&parameters) }.map_err(refuse)?;
        config.ssl_mode(tls.driver_mode());
        if config.get_dbname().is_none() {
            config.dbname(DATABASE);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("quipu");
        }
        Ok(Self { url, given, config, tls })
    }

    /// Opens one connection; its background task ends with the client. Waits without a limit, and says so
    /// after 5 s.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Broken`], with role, database and the server's answer.
    pub async fn connect(&self) -> Result<Client, Error> {
        // Boxed, because the future is large and would be part of every caller's future.
        let mut connecting = Box::pin(self.config.connect(self.tls.connector()));
        let answer = if let Ok(answer) = timeout(LOGIN_SLOW, &mut connecting).await {
            answer
        } else {
            tracing::warn!(
                "waiting for the login of role `{}` in database `{}` of {}, which takes more than {} s; \
                 another session may hold a lock on the database or the roles",
                self.role(),
                self.database(),
                self.address(),
                LOGIN_SLOW.as_secs()
            );
            connecting.await
        };
        let (client, connection) =
            answer.map_err(|error| Error::from(error).during(LOG_IN, self.target()))?;
        #[expect(clippy::disallowed_methods, reason = "ends by itself when the client is dropped")]
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %Error::from(error), "a connection to PostgreSQL ended");
            }
        });
        Ok(client)
    }

    /// The role that logs in.
    #[must_use]
    pub fn role(&self) -> &str {
        self.config.get_user().unwrap_or("(none)")
    }

    /// The name of the database.
    #[must_use]
    pub fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or(DATABASE)
    }

    /// The host: a name, an address, or the folder of a unix socket.
    #[must_use]
    pub fn host(&self) -> String {
        match self.config.get_hosts() {
            [Host::Tcp(host), ..] => host.clone(),
            [Host::Unix(folder), ..] => folder.display().to_string(),
            [] => String::new(),
        }
    }

    /// The port, 5432 by default.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.config.get_ports().first().copied().unwrap_or(5432)
    }

    /// `host:port`, for messages.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host(), self.port())
    }

    /// Role, database and address, for errors.
    pub(super) fn target(&self) -> Target {
        Target { role: self.role().to_owned(), database: self.database().to_owned(), address: self.address() }
    }

    /// Whether both URLs lead to the same database of the same server, whatever the role.
    #[must_use]
    pub fn is_same_database(&self, other: &Self) -> bool {
        (self.host(), self.port(), self.database()) == (other.host(), other.port(), other.database())
    }

    /// The password, if the URL has one.
    pub(super) fn password(&self) -> Option<String> {
        self.config.get_password().map(|password| String::from_utf8_lossy(password).into_owned())
    }

    /// The URL of another role and database on the same server, with the same parameters.
    ///
    /// # Errors
    /// [`Error::Url`] when the URL has no host.
    pub fn with_role(&self, role: &str, password: &Secret, database: &str) -> Result<Secret, Error> {
        let refuse = |()| Error::Url { url: masked(&self.given), problem: "has no host".to_owned() };
        let mut url = self.given.clone();
        url.set_username(role).map_err(refuse)?;
        url.set_password(Some(&password.for_url())).map_err(refuse)?;
        url.path_segments_mut().map_err(refuse)?.clear().push(database);
        Ok(Secret::new(url.as_str()))
    }

    /// The URL of another role that has the same password.
    ///
    /// # Errors
    /// [`Error::Url`] when the URL has no host.
    pub fn with_role_and_its_password(&self, role: &str) -> Result<Secret, Error> {
        let mut url = self.given.clone();
        let refuse = |()| Error::Url { url: masked(&self.given), problem: "has no host".to_owned() };
        url.set_username(role).map_err(refuse)?;
        Ok(Secret::new(url.as_str()))
    }

    /// The URL of another role on the same server, in the same database, with the same parameters and without a
    /// password.
    ///
    /// # Errors
    /// [`Error::Url`] when the URL has no host.
    pub fn with_role_alone(&self, role: &str) -> Result<Url, Error> {
        let refuse = |()| Error::Url { url: masked(&self.given), problem: "has no host".to_owned() };
        let mut url = self.given.clone();
        url.set_username(role).map_err(refuse)?;
        url.set_password(None).map_err(refuse)?;
        Ok(url)
    }

    /// The same role in another database.
    ///
    /// # Errors
    /// As [`Server::parse`].
    pub fn in_database(&self, database: &str) -> Result<Self, Error> {
        let refuse = |()| Error::Url { url: masked(&self.given), problem: "has no host".to_owned() };
        let mut url = self.given.clone();
        url.path_segments_mut().map_err(refuse)?.clear().push(database);
        Self::parse(&Secret::new(url.as_str()))
    }

    /// TLS to the server.
    pub(super) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// For deadpool-postgres.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// For sqlx.
    ///
    /// # Errors
    /// [`Error::Url`] for what sqlx does not support: channel binding.
    pub(super) fn sqlx_options(&self) -> Result<PgConnectOptions, Error> {
        let refuse = |problem: String| Error::Url { url: masked(&self.given), problem };
        if self.config.get_channel_binding() == ChannelBinding::Require {
            return Err(refuse(
                "channel_binding=require is not supported for the session and read URLs: use sslmode=verify-full".to_owned(),
            ));
        }
        let mut url = self.url.clone();
        keep_parameters(&mut url, |key| SQLX_PARAMETERS.contains(&key));
        let options: PgConnectOptions = url.as_str().parse().map_err(|error| refuse(format!("{error}")))?;
        let options = options.application_name("quipu").database(self.database());
        let options = match self.config.get_hosts() {
            // `url` would give an IPv6 address in brackets.
            [Host::Tcp(host), ..] => options.host(host),
            _ => options,
        };
        Ok(self.tls.apply(options))
    }
}

/// Refuses what would mean something else to one of the drivers, or once another role is put into the URL
/// ([`Server::with_role`]): a parameter for role, password or database wins over its place, and what follows `#`
/// is part of the last parameter for one driver and nothing for the other.
fn check_parts(given: &Url) -> Result<(), String> {
    if given.fragment().is_some() {
        return Err("`#` has to be written %23".to_owned());
    }
    let misplaced =
        pairs(given).into_iter().find(|(key, _)| ["user", "password", "dbname"].contains(&key.as_str()));
    misplaced.map_or(Ok(()), |(key, _)| {
        Err(format!(
            "the parameter {key} is not accepted: write postgres://role:password@host:port/database; for a socket the \
             host is its folder with / as %2F"
        ))
    })
}

/// Separates the TLS parameters from a URL.
fn split(given: &Url) -> (Url, TlsParameters) {
    let mut parameters = TlsParameters::default();
    for (key, value) in pairs(given) {
        let place = match key.as_str() {
            "sslmode" => &mut parameters.mode,
            "sslrootcert" => &mut parameters.root,
            "sslcert" => &mut parameters.certificate,
            "sslkey" => &mut parameters.key,
            _ => continue,
        };
        *place = Some(value);
    }
    let mut url = given.clone();
    keep_parameters(&mut url, |key| !["sslmode", "sslrootcert", "sslcert", "sslkey"].contains(&key));
    (url, parameters)
}

/// The decoded parameters of a URL. Unlike in a form, `+` in a database URL is a plus.
fn pairs(url: &Url) -> Vec<(String, String)> {
    let query = url.query().unwrap_or_default().replace('+', "%2B");
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// Keeps some of the parameters, in their encoded form.
fn keep_parameters(url: &mut Url, keep: impl Fn(&str) -> bool) {
    let query = url.query().unwrap_or_default();
    let is_kept =
        |pair: &str| form_urlencoded::parse(pair.as_bytes()).next().is_some_and(|(key, _)| keep(&key));
    let kept: Vec<&str> = query.split('&').filter(|pair| is_kept(pair)).collect();
    let kept = kept.join("&");
    url.set_query(Some(kept.as_str()).filter(|query| !query.is_empty()));
}

/// Scheme, host, port and database, without role and password.
fn masked(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://***@{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tls::SslMode;

    fn parse(url: &str) -> Result<Server, Error> {
        Server::parse(&Secret::new(url))
    }

    #[test]
    fn a_url_means_the_same_to_both_drivers() {
        let server =
            parse("postgres://quipu:p%40ss@[::1]:6432/my%20base?sslmode=require&options=-c%20work_mem%3D1MB")
                .unwrap();
        assert_eq!((server.role(), server.database(), server.port()), ("quipu", "my base", 6432));
        assert_eq!(server.host(), "::1");
        assert_eq!(server.tls().mode(), SslMode::Require);
        assert_eq!(server.config().get_options(), Some("-c work_mem=1MB"));
        let options = server.sqlx_options().unwrap();
        assert_eq!((options.get_host(), options.get_port()), ("::1", 6432));
        assert_eq!(options.get_database(), Some("my base"));
        assert_eq!(options.get_options(), Some("-c work_mem=1MB"));
    }

    #[test]
    fn an_unusable_url_is_refused_with_the_parameter_and_without_the_password() {
        for (url, named) in [
            ("postgres://a:hunter2@h/d?sslmode=maybe", "sslmode `maybe` is none of: disable, allow"),
            (
                "postgres://a:hunter2@h/d?sslmode=verify-full&sslrootcert=/no/such/file",
                "sslrootcert /no/such/file",
            ),
            ("postgres://a:hunter2@h/d?sslmode=require&sslrootcert=system", "use verify-full"),
            ("postgres://a:hunter2@h/d?sslcert=/etc/hostname", "sslcert needs sslkey"),
            ("postgres://a:hunter2@h/d?no_such=1", "no_such"),
            ("postgres://a:hunter2@h/d?hostaddr=127.0.0.1", "no hostaddr"),
            ("postgres://h/d?user=a&password=hunter2", "the parameter user is not accepted"),
            ("postgres://a@h/d?passwor%64=hunter2", "the parameter password is not accepted"),
            ("postgres://a:x@h/d?dbname=hunter2", "the parameter dbname is not accepted"),
            ("postgres://a:x@h/d?options=a#hunter2", "`#` has to be written %23"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(named), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let bound = parse("postgres://a:hunter2@h/d?sslmode=require&channel_binding=require").unwrap();
        assert!(bound.sqlx_options().unwrap_err().to_string().contains("channel_binding"));
    }

    #[test]
    fn the_url_of_another_role_keeps_server_and_parameters() {
        let server =
            parse("postgres://admin:x@db.example:5433/app?sslmode=disable&connect_timeout=3").unwrap();
        let url = server.with_role("quipu_owner", &Secret::new("s3/c%41ret"), "other").unwrap();
        assert_eq!(
            url.expose(),
            "postgres://quipu_owner:s3%2Fc%2541ret@db.example:5433/other?sslmode=disable&connect_timeout=3"
        );
    }
}
