//! Starts that are refused before any server runs, and whether the messages help.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
};

use quipu::store::embedded::{Embedded, Error};

use super::kit::{config, folder};

#[tokio::test]
async fn two_quipus_on_one_folder_are_refused() {
    let folder = folder();
    let data = folder.path().join("data");
    let first = Embedded::start(config(&data)).await.unwrap();
    let error = Embedded::start(config(&data)).await.unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    assert!(first.postgres_pid().is_some());
    first.stop().await;
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_names_limit_and_remedy() {
    let folder = folder();
    let data = folder.path().join("d".repeat(90));
    let error = Embedded::start(config(&data)).await.unwrap_err();
    let Error::SocketPathTooLong { bytes, limit: 107, .. } = error else { panic!("{error}") };
    assert!(error.to_string().contains(&format!("{bytes} bytes")), "{error}");
    assert!(error.to_string().contains("make run DATA=/var/lib/quipu"), "{error}");
    assert!(!data.exists(), "nothing was made");
}

#[tokio::test]
async fn a_folder_that_the_servers_user_cannot_enter_is_named() {
    let folder = folder();
    let closed = folder.path().join("closed");
    let data = closed.join("deeper/data");
    fs::create_dir_all(closed.join("deeper")).unwrap();
    // Without the right to enter, even for the owner, so that the test holds for any user that runs it.
    fs::set_permissions(&closed, Permissions::from_mode(0o600)).unwrap();
    let error = Embedded::start(config(&data)).await.unwrap_err();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let Error::CannotEnter { component, .. } = &error else { panic!("{error}") };
    assert_eq!(component, &closed);
    assert!(error.to_string().contains("--data /var/lib/quipu"), "{error}");
    assert!(!data.exists(), "nothing was made");
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_way_out() {
    let folder = folder();
    let config = config(&folder.path().join("data"));
    let taken = TcpListener::bind(("127.0.0.1", config.pgbouncer_port)).unwrap();
    let error = Embedded::start(config.clone()).await.unwrap_err();
    assert!(matches!(error, Error::PortInUse { program: "PgBouncer", .. }), "{error}");
    assert!(error.to_string().contains("--port-base"), "{error}");
    drop(taken);
    Embedded::start(config).await.unwrap().stop().await;
}

#[tokio::test]
async fn lost_credentials_are_not_replaced_by_others() {
    let folder = folder();
    let data = folder.path().join("data");
    Embedded::start(config(&data)).await.unwrap().stop().await;
    let mode = data.join("credentials.json").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::remove_file(data.join("credentials.json")).unwrap();
    let error = Embedded::start(config(&data)).await.unwrap_err();
    assert!(matches!(error, Error::Credentials { .. }), "{error}");
}

#[tokio::test]
async fn settings_that_postgres_refuses_are_shown() {
    let folder = folder();
    let mut config = config(&folder.path().join("data"));
    config.postgresql_conf = "no_such_setting = 7\n".to_owned();
    let error = Embedded::start(config).await.unwrap_err();
    assert!(matches!(error, Error::Ended { program: "PostgreSQL", .. }), "{error}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}
