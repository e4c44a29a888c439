//! A PostgreSQL that an operator runs: new and existing databases, administrators who are not superusers,
//! roles that the operator prepared, passwords, and the messages when something is missing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use quipu::base::Secret;
use quipu::store::embedded::{Error, Pooler, PoolerConfig, SharedRole};
use quipu::store::setup::{self, check_roles, check_tables};
use quipu::store::{DatabaseUrls, owner};
use sha2::{Digest as _, Sha256};

use super::kit::{ask, free_ports};
use crate::support::database::procedures;
use crate::support::instance::{Ran, quipu, run};
use crate::support::operator::OperatorServer;

const STORED: &str = "server-credentials.json";

async fn start(server: &OperatorServer, role: &str, data: &Path, database: &str) -> Result<Pooler, Error> {
    let admin = match role {
        "postgres" => server.superuser_url(database),
        role => Secret::new(server.url(role, "secret", "127.0.0.1", database)),
    };
    Pooler::start(PoolerConfig { data: data.to_path_buf(), port: free_ports().0, admin }).await
}

/// Migrates, and checks the role behind each URL.
async fn works(pooler: &Pooler, database: &str) -> DatabaseUrls {
    let urls = pooler.urls();
    check_roles(urls.owner().unwrap()).await.unwrap();
    owner::migrate(urls.owner().unwrap(), &procedures("bigbrotr")).await.unwrap();
    check_tables(urls.owner().unwrap()).await.unwrap();
    urls.check().await.unwrap();
    for (url, role) in [
        (&urls.write, "quipu"),
        (&urls.session, "quipu_session"),
        (urls.owner().unwrap(), "quipu_owner"),
        (&pooler.shared_role_url(SharedRole::Reader), "quipu_reader"),
    ] {
        let asked = ask(url, "select current_user || ' ' || current_database()").await.unwrap();
        assert_eq!(asked, format!("{role} {database}"));
    }
    assert_eq!(ask(&urls.write, "select count(*)::text from events").await.unwrap(), "0");
    urls
}

/// Stops the pooler and releases the lock of its folder.
async fn end(pooler: Pooler) {
    pooler.stop().await;
}

/// The password that earlier versions derived from the administrator's.
fn derived(role: &str) -> String {
    hex::encode(Sha256::digest(format!("quipu/{}/{role}/secret", role.len())))
}

#[tokio::test]
async fn an_administrator_who_is_no_superuser_prepares_new_and_existing_databases() {
    let server = OperatorServer::start().await;
    let data = server.folder().join("ours");
    server
        .sql(
            "CREATE ROLE admin LOGIN CREATEROLE CREATEDB PASSWORD 'secret'; CREATE DATABASE theirs OWNER admin; \
             REVOKE ALL ON DATABASE theirs FROM PUBLIC; CREATE DATABASE taken; REVOKE ALL ON DATABASE taken FROM PUBLIC",
        )
        .await;

    // The database does not exist yet.
    let pooler = start(&server, "admin", &data, "fresh").await.unwrap();
    let first = works(&pooler, "fresh").await;
    end(pooler).await;
    let stored = data.join(STORED);
    assert_eq!(stored.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let kept = fs::read_to_string(&stored).unwrap();
    for role in ["quipu_owner", "quipu", "quipu_session", "quipu_reader"] {
        assert!(!kept.contains(&derived(role)), "no password is derived from the administrator's");
    }
    let member = "select count(*)::text from pg_auth_members m join pg_roles r on r.oid = m.member where rolname = 'admin'";
    assert_eq!(
        ask(&server.superuser_url("postgres"), member).await.unwrap(),
        "0",
        "the administrator's membership ended"
    );

    // The database exists, and the roles may not enter it. The passwords stay the same.
    let pooler = start(&server, "admin", &data, "theirs").await.unwrap();
    let second = works(&pooler, "theirs").await;
    end(pooler).await;
    assert_eq!(fs::read_to_string(&stored).unwrap(), kept);
    let owner = |urls: &DatabaseUrls| urls.owner().unwrap().expose().to_owned();
    assert_eq!(owner(&second), owner(&first).replace("/fresh", "/theirs"));

    // The database belongs to another role: this administrator cannot grant privileges on it, a superuser
    // can.
    let refused = start(&server, "admin", &data, "taken").await.unwrap_err().to_string();
    for words in ["role `admin`", "SQLSTATE 42501", "GRANT CONNECT ON DATABASE \"taken\" TO quipu_owner"] {
        assert!(refused.contains(words), "{words} in: {refused}");
    }
    let pooler = start(&server, "postgres", &data, "taken").await.unwrap();
    works(&pooler, "taken").await;
    end(pooler).await;

    passwords_of_another_installation_are_left_alone(&server, &data).await;
    derived_passwords_are_replaced(&server, &data).await;
    server.stop().await;
}

async fn passwords_of_another_installation_are_left_alone(server: &OperatorServer, data: &Path) {
    let other = server.folder().join("another-machine");
    let refused = start(server, "admin", &other, "fresh").await.unwrap_err();
    assert!(matches!(refused, Error::Setup(setup::Error::PasswordsUnknown { .. })), "{refused}");
    for words in [STORED, "QUIPU_SESSION_DATABASE_URL", "quipu setup-sql"] {
        assert!(refused.to_string().contains(words), "{refused}");
    }
    assert!(!other.join(STORED).exists());
    fs::copy(data.join(STORED), other.join(STORED)).unwrap();
    start(server, "admin", &other, "fresh").await.unwrap().stop().await;
}

async fn derived_passwords_are_replaced(server: &OperatorServer, data: &Path) {
    for role in ["quipu_owner", "quipu", "quipu_session", "quipu_reader"] {
        server.sql(&format!("ALTER ROLE {role} PASSWORD '{}'", derived(role))).await;
    }
    fs::remove_file(data.join(STORED)).unwrap();
    let pooler = start(server, "admin", data, "fresh").await.unwrap();
    works(&pooler, "fresh").await;
    end(pooler).await;
    let old = server.url("quipu_owner", &derived("quipu_owner"), "127.0.0.1", "fresh");
    let refused = owner::connect(&Secret::new(old)).await.unwrap_err();
    assert_eq!(refused.sqlstate(), Some("28P01"), "{refused}");
}

/// A revoked privilege, and the text that reports it as missing.
const TAKEN: &[(&str, &str)] = &[
    // The service inherits from the roles for people.
    (
        "REVOKE CONNECT ON DATABASE archive FROM quipu, quipu_session, quipu_reader, quipu_messages_reader, quipu_writer",
        "role quipu has the privilege CONNECT on database \"archive\"",
    ),
    (
        "REVOKE CONNECT ON DATABASE archive FROM quipu_writer, quipu",
        "role quipu_writer has the privilege CONNECT",
    ),
    ("REVOKE TEMPORARY ON DATABASE archive FROM quipu", "role quipu has the privilege TEMPORARY"),
    (
        "REVOKE CREATE ON DATABASE archive FROM quipu_owner",
        "role quipu_owner has the privilege CREATE on database",
    ),
    (
        "REVOKE CREATE ON SCHEMA public FROM quipu_owner",
        "role quipu_owner has the privilege CREATE on schema public",
    ),
    (
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC, quipu_reader",
        "role quipu_reader has the privilege USAGE on schema public",
    ),
    ("REVOKE quipu FROM quipu_session", "role quipu_session has the privileges of role quipu"),
    ("ALTER ROLE quipu NOLOGIN", "role quipu may log in"),
    ("ALTER ROLE quipu CREATEDB", "role quipu has no attribute of an administrator"),
    ("REVOKE INSERT ON ingest_log FROM quipu", "role quipu has the privilege INSERT on table ingest_log"),
    (
        "REVOKE SELECT ON events FROM quipu, quipu_reader",
        "role quipu has the privilege SELECT on table events",
    ),
    ("REVOKE DELETE ON lease FROM quipu", "role quipu has the privilege DELETE on table lease"),
];

#[tokio::test]
async fn what_the_operator_prepared_is_enough_and_what_is_missing_is_named() {
    let server = OperatorServer::start().await;
    server
        .sql("CREATE ROLE admin LOGIN CREATEROLE CREATEDB PASSWORD 'secret'; CREATE DATABASE archive")
        .await;
    let environment = by_script(&server).await;
    let owner = Secret::new(environment[2].1.clone());
    let (role, database) = ("quipu_owner", "archive");

    // Before the migrations: a privilege that only the migrations need.
    let superuser = server.superuser("archive").await;
    superuser.batch_execute("REVOKE CREATE ON SCHEMA public FROM quipu_owner").await.unwrap();
    let refused = owner::migrate(&owner, &procedures("bigbrotr")).await.unwrap_err().to_string();
    for words in [
        "migrate the schema",
        role,
        database,
        "permission denied for schema public",
        "SQLSTATE 42501",
        "setup-sql --check",
    ] {
        assert!(refused.contains(words), "{words} in: {refused}");
    }
    superuser.batch_execute("GRANT CREATE ON SCHEMA public TO quipu_owner").await.unwrap();
    owner::migrate(&owner, &procedures("bigbrotr")).await.unwrap();

    for (take, named) in TAKEN {
        superuser.batch_execute(take).await.unwrap_or_else(|error| panic!("{take}: {error:?}"));
        let checked = async { check_roles(&owner).await.and(check_tables(&owner).await) };
        let told = checked.await.unwrap_err();
        let setup::Error::Missing { missing, .. } = &told else { panic!("{take}: {told}") };
        assert!(told.to_string().contains(named), "{take}: {told}");
        for requirement in missing {
            assert!(told.to_string().contains(&requirement.statement), "{told}");
            superuser.batch_execute(&requirement.statement).await.unwrap();
        }
        check_roles(&owner)
            .await
            .unwrap_or_else(|error| panic!("after the statement that undoes `{take}`: {error}"));
        check_tables(&owner)
            .await
            .unwrap_or_else(|error| panic!("after the statement that undoes `{take}`: {error}"));
    }
    the_commands_say_the_same(&server, &superuser, &environment).await;
    logins_that_fail_say_why(&server, &owner).await;
    server.stop().await;
}

/// Runs the script that `quipu setup-sql` prints, first as the administrator who is not a superuser, then as
/// the superuser, and returns the environment variables that it names.
async fn by_script(server: &OperatorServer) -> Vec<(String, String)> {
    let folder = server.folder();
    let admin = server.url("admin", "secret", "127.0.0.1", "archive");
    let printed = run(quipu(folder).args(["setup-sql"]).env("DATABASE_URL", &admin), folder).ok().stdout;
    let script = folder.join("setup.sql");
    fs::write(&script, &printed).unwrap();
    let psql =
        |url: &str| run(std::process::Command::new("psql").arg(url).args(["-qX", "-f"]).arg(&script), folder);
    // The database belongs to the superuser, so the administrator's grants on it have no effect: PostgreSQL
    // warns.
    psql(&server.url("admin", "secret", "127.0.0.1", "postgres")).ok();
    server.sql("REVOKE ALL ON DATABASE archive FROM PUBLIC").await;
    psql(server.superuser_url("postgres").expose()).ok();
    let lines = printed.lines().filter_map(|line| line.strip_prefix("-- ")?.split_once("=postgres://"));
    let environment: Vec<_> =
        lines.map(|(name, url)| (name.to_owned(), format!("postgres://{url}"))).collect();
    assert_eq!(environment.len(), 6, "{printed}");
    environment
}

async fn the_commands_say_the_same(
    server: &OperatorServer,
    superuser: &tokio_postgres::Client,
    environment: &[(String, String)],
) {
    let folder = server.folder();
    let command = |arguments: &[&str]| -> Ran {
        run(quipu(folder).args(arguments).envs(environment.iter().cloned()), folder)
    };
    command(&["setup-sql", "--check"]).ok();
    superuser.batch_execute("REVOKE INSERT ON relay_log FROM quipu").await.unwrap();
    let told = command(&["setup-sql", "--check"]);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let expected = "-- missing: role quipu has the privilege INSERT on table relay_log\nGRANT INSERT ON TABLE relay_log TO quipu;\n";
    assert_eq!(told.stdout, expected);
    superuser.batch_execute("GRANT INSERT ON TABLE relay_log TO quipu").await.unwrap();
    for (door, (_, url)) in
        ["write", "session", "owner", "reader", "messages-reader", "writer"].into_iter().zip(environment)
    {
        assert_eq!(command(&["url", door]).ok().stdout, format!("{url}\n"));
    }
    let admin = command(&["url", "admin"]).refusal();
    assert!(admin.contains("the login of its administrator"), "{admin}");
    let without = run(quipu(folder).args(["url", "reader"]).envs(environment[..3].iter().cloned()), folder);
    assert!(without.refusal().contains("set QUIPU_READER_DATABASE_URL"), "the reader's URL is unknown");
}

async fn logins_that_fail_say_why(server: &OperatorServer, owner: &Secret) {
    let at = |url: String| async move { owner::connect(&Secret::new(url)).await.unwrap_err().to_string() };
    let wrong = at(server.url("quipu_owner", "wrong", "127.0.0.1", "archive")).await;
    let absent = at(owner.expose().replace("/archive", "/absent")).await;
    let closed = at("postgres://quipu_owner:x@127.0.0.1:1/archive".to_owned()).await;
    server
        .superuser("archive")
        .await
        .batch_execute("REVOKE CONNECT ON DATABASE archive FROM quipu_owner, PUBLIC")
        .await
        .unwrap();
    let barred = at(owner.expose().to_owned()).await;
    for (told, words) in [
        (&wrong, ["SQLSTATE 28P01", "password authentication failed", "The password in the database URL"]),
        (&absent, ["SQLSTATE 3D000", "\"absent\" does not exist", "quipu setup-sql"]),
        (&closed, ["127.0.0.1:1", "Connection refused", "Check that the server runs"]),
        (
            &barred,
            ["SQLSTATE 42501", "CONNECT privilege", "GRANT CONNECT ON DATABASE \"archive\" TO quipu_owner"],
        ),
    ] {
        for words in words.into_iter().chain(["cannot log in as role `quipu_owner`", "in database `a"]) {
            assert!(told.contains(words), "{words} in: {told}");
        }
        assert!(!told.contains("db error"), "{told}");
    }
}

/// `quipu setup`, as docker compose runs it: passwords come from files, and the roles get the settings that the
/// embedded server's have.
#[tokio::test]
async fn setup_with_passwords_in_files_prepares_what_a_start_requires() {
    let server = OperatorServer::start().await;
    let folder = server.folder().join("secrets");
    fs::create_dir(&folder).unwrap();
    let admin = url::Url::parse(server.superuser_url("quipu").expose()).unwrap();
    fs::write(folder.join("postgres"), format!("{}\n", admin.password().unwrap())).unwrap();
    let mut without_password = admin.clone();
    without_password.set_password(None).unwrap();
    let setup = || {
        let mut command = quipu(server.folder());
        command.env("DATABASE_URL", without_password.as_str());
        command.env("DATABASE_PASSWORD_FILE", folder.join("postgres"));
        command.args(["setup", "--passwords"]).arg(&folder);
        run(&mut command, server.folder())
    };
    let told = setup().refusal();
    let roles =
        ["quipu_owner", "quipu", "quipu_session", "quipu_reader", "quipu_messages_reader", "quipu_writer"];
    for role in roles {
        assert!(told.contains(&format!("{}: No such file", folder.join(role).display())), "{told}");
    }
    for role in roles {
        fs::write(folder.join(role), "").unwrap();
    }
    let told = setup().refusal();
    assert!(told.contains("the file is empty"), "{told}");
    // The second time another password: the roles get it.
    for password in ["first", "s3cret"] {
        for role in roles {
            fs::write(folder.join(role), format!("{password}\n")).unwrap();
        }
        let printed = setup().ok().stdout;
        let owner = server.url("quipu_owner", "", "127.0.0.1", "quipu").replace(":@", "@");
        assert!(printed.contains(&format!("\nQUIPU_OWNER_DATABASE_URL={owner}?")), "{printed}");
        let file = folder.join("quipu_writer");
        let variable = format!("\nQUIPU_WRITER_DATABASE_PASSWORD_FILE={}\n", file.display());
        assert!(printed.contains(&variable) && !printed.contains(password), "{printed}");
    }
    let owner_url = Secret::new(server.url("quipu_owner", "s3cret", "127.0.0.1", "quipu"));
    check_roles(&owner_url).await.unwrap();
    let migrated = owner::migrate(&owner_url, &procedures("bigbrotr")).await.unwrap();
    assert!(migrated.applied.is_empty() && !migrated.procedures_applied, "setup has migrated: {migrated:?}");
    check_tables(&owner_url).await.unwrap();
    let service = Secret::new(server.url("quipu", "s3cret", "127.0.0.1", "quipu"));
    assert_eq!(ask(&service, "SHOW wal_compression").await.unwrap(), "lz4");
    let is_closed = "SELECT (NOT has_database_privilege('quipu_reader', 'postgres', 'CONNECT'))::text";
    assert_eq!(ask(&service, is_closed).await.unwrap(), "true");
    let refused = Secret::new(server.url("quipu", "first", "127.0.0.1", "quipu"));
    assert!(ask(&refused, "SELECT 1").await.is_err(), "the first password is replaced");
}
