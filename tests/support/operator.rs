//! A PostgreSQL that an operator runs: a superuser, no role or database of Quipu, and TLS when a test enables
//! it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use quipu::base::Secret;
use quipu::store::embedded::{Embedded, EmbeddedConfig};
use quipu::store::owner;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_postgres::Client;
use url::Url;

use super::database::{enterable_folder, free_ports};

/// The server. Call [`OperatorServer::stop`] at the end.
pub(crate) struct OperatorServer {
    embedded: Embedded,
    folder: TempDir,
}

impl OperatorServer {
    pub(crate) async fn start() -> Self {
        let folder = enterable_folder();
        let (postgres_port, pgbouncer_port) = free_ports();
        let config = EmbeddedConfig {
            data: folder.path().join("server"),
            postgres_port,
            pgbouncer_port,
            postgresql_conf: "shared_buffers = '32MB'\nmax_connections = 100\nfsync = off\n".to_owned(),
            database: "quipu".to_owned(),
        };
        let server = Self { embedded: Embedded::start(config).await.unwrap(), folder };
        server
            .sql(
                "DROP DATABASE quipu; DROP ROLE quipu, quipu_session, quipu_reader, quipu_messages_reader, quipu_writer, quipu_owner; \
                 GRANT CONNECT, TEMPORARY ON DATABASE postgres, template1 TO PUBLIC",
            )
            .await;
        server
    }

    /// Runs statements as the superuser in database `postgres`, each in its own transaction.
    pub(crate) async fn sql(&self, statements: &str) {
        let client = self.superuser("postgres").await;
        for statement in statements.split("; ") {
            client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
    }

    /// A connection as the superuser to one database.
    pub(crate) async fn superuser(&self, database: &str) -> Client {
        owner::connect(&self.superuser_url(database)).await.unwrap()
    }

    pub(crate) fn superuser_url(&self, database: &str) -> Secret {
        let mut url = Url::parse(self.embedded.superuser_url().expose()).unwrap();
        url.set_path(database);
        Secret::new(url.as_str())
    }

    /// A role's URL without parameters.
    pub(crate) fn url(&self, role: &str, password: &str, host: &str, database: &str) -> String {
        format!("postgres://{role}:{password}@{host}:{}/{database}", self.port())
    }

    pub(crate) fn port(&self) -> u16 {
        Url::parse(self.embedded.superuser_url().expose()).unwrap().port().unwrap()
    }

    /// A folder for the test's own files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Enables TLS, with a certificate for `localhost` alone. Every role but the superuser must use it;
    /// `quipu_reader` logs in to database `postgres` with a client certificate. Returns the file of the
    /// authority's certificate.
    pub(crate) async fn turn_tls_on(&self, authority: &Authority) -> PathBuf {
        let data = self.folder().join("server/postgres");
        let (certificate, key) = authority.issue("localhost", "localhost");
        for (name, text) in
            [("server.crt", &certificate), ("server.key", &key), ("root.crt", &authority.0.pem())]
        {
            self.write_for_the_server(&data.join(name), text);
        }
        let hba = "local all all scram-sha-256\nhostnossl all postgres 127.0.0.1/32 scram-sha-256\n\
                   hostssl postgres quipu_reader 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        self.write_for_the_server(&data.join("pg_hba.conf"), hba);
        self.sql(
            "ALTER SYSTEM SET ssl = on; ALTER SYSTEM SET ssl_ca_file = 'root.crt'; SELECT pg_reload_conf()",
        )
        .await;
        let root = self.folder().join("authority.pem");
        fs::write(&root, authority.0.pem()).unwrap();
        root
    }

    fn write_for_the_server(&self, path: &Path, text: &str) {
        let owner = self.folder().join("server/postgres").metadata().unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    pub(crate) async fn stop(self) {
        self.embedded.stop().await;
    }
}

/// An authority that issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Loopback Authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key for a DNS name, PEM.
    pub(crate) fn issue(&self, name: &str, common_name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}
