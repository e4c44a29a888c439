//! Database URLs of the roles on this machine: `postgres://role:password@host:port/database`.

use url::Url;

use crate::base::Secret;
use crate::store::DatabaseUrls;
use crate::store::setup::Credentials;

/// The only address that the private servers listen on.
pub(super) const LOOPBACK: &str = "127.0.0.1";

/// The URL of one role on this machine, without TLS, which would protect nothing here. `host` is a name, an
/// address, or the folder of a unix socket.
pub(super) fn role_url(role: &str, password: &Secret, host: &str, port: u16, database: &str) -> Secret {
    let mut url = Url::parse("postgres://localhost").expect("a constant URL");
    let host = match host {
        folder if folder.starts_with('/') => folder.replace('/', "%2F"),
        v6 if v6.contains(':') && !v6.starts_with('[') => format!("[{v6}]"),
        name => name.to_owned(),
    };
    // None of these calls can fail: the URL has a host, and every text is percent-encoded. An invalid `host`
    // leaves `localhost`, where the login fails with its own message.
    let _ = url.set_host(Some(&host));
    let _ = url.set_port(Some(port));
    let _ = url.set_username(role);
    let _ = url.set_password(Some(&password.for_url()));
    if let Ok(mut path) = url.path_segments_mut() {
        path.clear().push(database);
    }
    url.set_query(Some("sslmode=disable"));
    Secret::new(url.as_str())
}

/// The four database URLs: write, session and read through the pooler on loopback, and the owner's own URL,
/// which leads straight to the server.
pub(super) fn database_urls(
    credentials: &Credentials,
    pooler_port: u16,
    owner: Secret,
    database: &str,
) -> DatabaseUrls {
    let pooled = |role, password| role_url(role, password, LOOPBACK, pooler_port, database);
    let session = pooled("quipu_session", &credentials.session);
    let write = pooled("quipu", &credentials.service);
    DatabaseUrls { write, read: session.clone(), session, owner: Some(owner) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_with_any_character_is_read_back_by_the_driver() {
        let password = Secret::new("a b/c@d:e%f?g#h'ü%41");
        for host in ["db.example", "127.0.0.1", "::1", "/run/postgresql"] {
            let url = role_url("quipu", &password, host, 6432, "my/base");
            let config: tokio_postgres::Config = url.expose().parse().unwrap();
            assert_eq!(config.get_password(), Some(password.expose().as_bytes()), "{host}");
            assert_eq!(config.get_user(), Some("quipu"));
            assert_eq!(config.get_dbname(), Some("my/base"));
            assert_eq!(config.get_ports(), [6432]);
        }
    }
}
