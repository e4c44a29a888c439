//! Starts, stops and crashes: clean stops, killed processes, leftovers, and the next start.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quipu::{
    base::Secret,
    store::embedded::{Embedded, EmbeddedConfig, Error},
};
use tokio_util::sync::CancellationToken;

use super::kit::{ask, cluster_name, config, eventually, folder, processes_of};

fn kill_9(pid: u32) {
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn stop_leaves_no_process_and_the_next_start_finds_the_data() {
    let folder = folder();
    let data = folder.path().join("data");
    let embedded = Embedded::start(config(&data)).await.unwrap();
    let name = cluster_name(&embedded).await;
    assert!(!processes_of(&data, &name).is_empty());
    create_table(embedded.urls().owner().unwrap(), "kept").await;
    let credentials = fs::read(data.join("credentials.json")).unwrap();

    embedded.stop().await;
    assert_eq!(processes_of(&data, &name), Vec::<String>::new());
    assert!(!data.join("postgres/postmaster.pid").exists(), "PostgreSQL shut down by itself");
    assert_eq!((embedded.postgres_pid(), embedded.pgbouncer_pid()), (None, None));
    drop(embedded);

    let again = Embedded::start(config(&data)).await.unwrap();
    assert_eq!(fs::read(data.join("credentials.json")).unwrap(), credentials);
    assert_eq!(ask(again.urls().owner().unwrap(), "select to_regclass('kept')::text").await.unwrap(), "kept");
    again.stop().await;
}

#[tokio::test]
async fn a_killed_server_comes_back_while_it_is_supervised() {
    let folder = folder();
    let embedded = Embedded::start(config(&folder.path().join("data"))).await.unwrap();
    let stop = CancellationToken::new();
    let life = async {
        for _ in 0..2 {
            let postmaster = embedded.postgres_pid().unwrap();
            kill_9(postmaster);
            eventually(async || match embedded.postgres_pid() {
                Some(pid) if pid != postmaster => Ok(()),
                other => Err(other),
            })
            .await;
            eventually(async || ask(&embedded.urls().write, "select ''").await).await;
        }
        let pooler = embedded.pgbouncer_pid().unwrap();
        kill_9(pooler);
        eventually(async || match embedded.pgbouncer_pid() {
            Some(pid) if pid != pooler => Ok(()),
            other => Err(other),
        })
        .await;
        eventually(async || ask(&embedded.urls().write, "select ''").await).await;
        stop.cancel();
    };
    let (answer, ()) = tokio::join!(embedded.supervise(stop.clone()), life);
    answer.unwrap();
    embedded.stop().await;
}

#[tokio::test]
async fn a_busy_backend_of_a_killed_postmaster_does_not_keep_the_next_one_from_starting() {
    let folder = folder();
    let embedded = Embedded::start(config(&folder.path().join("data"))).await.unwrap();
    let stop = CancellationToken::new();
    let busy = "select count(*)::text from generate_series(1, 1000000000000)";
    let superuser = embedded.superuser_url();
    let life = async {
        let running = "select count(*)::text from pg_stat_activity where query like '%generate_series(1, 1%' \
                       and pid <> pg_backend_pid()";
        eventually(async || match ask(&superuser, running).await.as_deref() {
            Ok("1") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        let postmaster = embedded.postgres_pid().unwrap();
        kill_9(postmaster);
        eventually(async || match embedded.postgres_pid() {
            Some(pid) if pid != postmaster => Ok(()),
            other => Err(other),
        })
        .await;
        eventually(async || ask(&superuser, "select ''").await).await;
        stop.cancel();
    };
    let owner = embedded.urls().owner.unwrap();
    let (answer, (), lost) = tokio::join!(embedded.supervise(stop.clone()), life, ask(&owner, busy));
    answer.unwrap();
    assert!(lost.is_err(), "the busy statement was ended");
    embedded.stop().await;
}

#[tokio::test]
async fn a_server_that_keeps_failing_is_given_up_with_the_end_of_its_log() {
    let folder = folder();
    let data = folder.path().join("data");
    let embedded = Embedded::start(config(&data)).await.unwrap();
    fs::write(data.join("postgres/conf.d/99-broken.conf"), "shared_buffers = 'many'\n").unwrap();
    kill_9(embedded.postgres_pid().unwrap());
    let error = embedded.supervise(CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, Error::KeepsFailing { program: "PostgreSQL", times: 5, .. }), "{error}");
    assert!(error.to_string().contains("shared_buffers"), "{error}");
    embedded.stop().await;
}

#[tokio::test]
async fn after_kill_9_of_quipu_the_next_start_stops_what_is_left() {
    let folder = folder();
    // Blanks and quotes must survive two configuration files and the recognition of processes.
    let data = folder.path().join("Quipu's \"own\" data");
    let ready = folder.path().join("ready.json");
    let base = free_port_block();
    let mut victim = Command::new(env!("CARGO_BIN_EXE_quipu"))
        .args(["up", "--port-base", &base.to_string(), "--set", "services.initializer.enabled=false"])
        .args(["--set", "services.synchronizer.enabled=false", "--set", "database.pooler=embedded"])
        .arg("--data")
        .arg(&data)
        .arg("--ready-file")
        .arg(&ready)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let said = eventually(async || fs::read_to_string(&ready)).await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let owner = Secret::new(said["owner_database_url"].as_str().unwrap());
    create_table(&owner, "kept").await;
    let name = ask(&owner, "select current_setting('cluster_name')").await.unwrap();

    victim.kill().unwrap();
    victim.wait().unwrap();
    let left = processes_of(&data, &name);
    assert!(left.iter().any(|line| line.contains("postgres -D")), "{left:?}");
    assert!(left.iter().any(|line| line.contains("pgbouncer")), "{left:?}");

    let config = EmbeddedConfig { postgres_port: base + 2, pgbouncer_port: base + 3, ..config(&data) };
    let embedded = Embedded::start(config).await.unwrap();
    assert_eq!(
        ask(embedded.urls().owner().unwrap(), "select to_regclass('kept')::text").await.unwrap(),
        "kept"
    );
    embedded.stop().await;
    assert_eq!(processes_of(&data, &name), Vec::<String>::new());
}

/// The first port of a free run of ports for one instance.
fn free_port_block() -> u16 {
    let free = |base: &u16| {
        (*base..base + quipu::app::Ports::COUNT).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
    };
    (20_000..30_000)
        .step_by(5)
        .skip(std::process::id() as usize % 1_000)
        .find(free)
        .expect("some ports are free")
}

#[tokio::test]
async fn a_process_that_a_stale_pid_file_names_is_not_signalled_and_does_not_prevent_the_start() {
    let folder = folder();
    let data = folder.path().join("data");
    let config = config(&data);
    let embedded = Embedded::start(config.clone()).await.unwrap();
    embedded.stop().await;
    drop(embedded);

    // An unrelated process of the servers' user.
    let mut unrelated = as_owner_of(&data.join("postgres"), "sleep", &["300"]).spawn().unwrap();
    let lines =
        format!("{}\n{}\n0\n{}\n", unrelated.id(), data.join("postgres").display(), config.postgres_port);
    write_beside(&data.join("postgres/PG_VERSION"), &data.join("postgres/postmaster.pid"), &lines);
    write_beside(&data.join("postgres/PG_VERSION"), &data.join("pgbouncer/pgbouncer.pid"), &lines);

    let embedded = Embedded::start(config).await.unwrap();
    assert!(unrelated.try_wait().unwrap().is_none(), "the unrelated process still runs");
    embedded.stop().await;
    unrelated.kill().unwrap();
    unrelated.wait().unwrap();
}

#[tokio::test]
async fn the_folder_of_a_killed_initdb_is_not_taken_for_a_cluster() {
    let folder = folder();
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("postgres.new-abc/base")).unwrap();
    fs::write(data.join("postgres.new-abc/PG_VERSION"), "15\n").unwrap();
    let embedded = Embedded::start(config(&data)).await.unwrap();
    assert!(!data.join("postgres.new-abc").exists());
    embedded.stop().await;
}

async fn create_table(owner: &Secret, name: &str) {
    let (client, connection) = tokio_postgres::connect(owner.expose(), tokio_postgres::NoTls).await.unwrap();
    let work = async move { client.batch_execute(&format!("create table {name} (a int)")).await };
    tokio::join!(work, connection).0.unwrap();
}

fn as_owner_of(path: &Path, program: &str, arguments: &[&str]) -> Command {
    use std::os::unix::{fs::MetadataExt, process::CommandExt};
    let metadata = path.metadata().unwrap();
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(metadata.uid()).gid(metadata.gid());
    }
    command
}

fn write_beside(owner: &Path, path: &Path, text: &str) {
    use std::os::unix::fs::{MetadataExt, chown};
    let metadata = owner.metadata().unwrap();
    fs::write(path, text).unwrap();
    chown(path, Some(metadata.uid()), Some(metadata.gid())).unwrap();
}
