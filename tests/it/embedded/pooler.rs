//! PgBouncer alone, in front of a server that somebody else runs.

use quipu::store::embedded::{
    Credentials, Embedded, Person, Pooler, PoolerConfig, UpstreamTls, create_database, create_roles,
};

use super::kit::{ask, config, folder, free_ports};

#[tokio::test]
async fn a_pooler_fronts_an_external_server() {
    let (theirs, ours) = (folder(), folder());
    let server = config(&theirs.path().join("data"));
    let external = Embedded::start(server.clone()).await.unwrap();
    let credentials = Credentials::random();
    create_roles(&external.superuser_url(), &credentials).await.unwrap();
    create_database(&external.superuser_url(), "archive").await.unwrap();

    let pooler = Pooler::start(PoolerConfig {
        data: ours.path().join("data"),
        port: free_ports().0,
        upstream_host: "127.0.0.1".to_owned(),
        upstream_port: server.postgres_port,
        upstream_tls: UpstreamTls::Prefer,
        database: "archive".to_owned(),
        credentials,
    })
    .await
    .unwrap();
    let urls = pooler.urls();
    for (url, role) in [
        (&urls.write, "quipu"),
        (&urls.session, "quipu_session"),
        (&urls.owner, "quipu_owner"),
        (&pooler.person_url(Person::Reader), "quipu_reader"),
    ] {
        assert_eq!(
            ask(url, "select current_user || ' ' || current_database()").await.unwrap(),
            format!("{role} archive")
        );
    }
    pooler.stop().await;
    assert_eq!(pooler.pgbouncer_pid(), None);
    external.stop().await;
}
