//! Creates the cluster's folder atomically and writes its configuration.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use nix::fcntl::OFlag;
use rand::{Rng, distr::Alphanumeric};
use tokio_util::sync::CancellationToken;

use super::{
    account::Account,
    address::LOOPBACK,
    binaries::PostgresPrograms,
    credentials::StoredCredentials,
    daemon::plain_command,
    directory::Directory,
    error::{At, Error},
    folder::{CLUSTER, Folder},
    log_files,
    processes::kill_group,
};

/// Settings that every PostgreSQL of Quipu needs. docker compose mounts the same text.
const SETTINGS: &str = include_str!("../../../postgres/quipu.conf");

/// Prefix of the folders that `initdb` works in. Each has a unique name, because an `initdb` that outlives a
/// killed Quipu must not write into the folder of its successor.
const DRAFT: &str = "postgres.new-";

/// The file in `run` that passes the superuser's password to `initdb`.
const PASSWORD_FILE: &str = "initdb-password";

/// The major version of the folder's cluster; `None` if there is no cluster yet.
///
/// # Errors
/// [`Error::Io`] when the version of an existing cluster cannot be read; [`Error::Planted`].
pub(super) fn major_version(folder: &Folder) -> Result<Option<u32>, Error> {
    let Some(cluster) = folder.cluster()? else { return Ok(None) };
    let path = cluster.path().join("PG_VERSION");
    let text = cluster.read("PG_VERSION").at("read", &path)?;
    let invalid = |error| Error::Io {
        action: "understand",
        path,
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
    };
    text.trim().parse().map(Some).map_err(invalid)
}

/// Creates the cluster in a temporary folder and renames that folder when everything is on disk, so a cluster
/// is complete or absent. When `stop` is cancelled, `initdb` is killed and the temporary folder removed.
///
/// # Errors
/// [`Error::Initdb`], [`Error::Io`], [`Error::Planted`], [`Error::Stopped`].
pub(super) async fn create(
    folder: &Folder,
    programs: &PostgresPrograms,
    kept: &StoredCredentials,
    stop: &CancellationToken,
) -> Result<(), Error> {
    remove_drafts(folder)?;
    let unique: String = rand::rng().sample_iter(Alphanumeric).take(8).map(char::from).collect();
    let name = format!("{DRAFT}{unique}");
    let draft = folder.root().private(&name, folder.account())?;
    folder.run().write(PASSWORD_FILE, kept.superuser.expose(), Some(folder.account()))?;

    let mut command = plain_command(&programs.initdb, folder.account());
    command
        .args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
        ])
        .arg(prefixed("--pwfile=", &folder.run().path().join(PASSWORD_FILE)))
        .arg(prefixed("--pgdata=", draft.path()))
        .current_dir(folder.run().path());
    let output = run_unless_stopped(command, stop).await;
    folder.run().remove(PASSWORD_FILE)?;
    match output.at("run", &programs.initdb)? {
        Some(output) if output.status.success() => {}
        None => {
            remove_drafts(folder)?;
            return Err(Error::Stopped);
        }
        Some(output) => {
            remove_drafts(folder)?;
            let printed = [output.stdout, output.stderr].concat();
            return Err(Error::Initdb { output: String::from_utf8_lossy(&printed).trim().to_owned() });
        }
    }
    include_our_settings(&draft, folder.account())?;
    folder.root().rename(&name, CLUSTER)
}

/// Runs a command to its end. When `stop` is cancelled, the command and its children are killed and the
/// output is `None`.
async fn run_unless_stopped(command: Command, stop: &CancellationToken) -> std::io::Result<Option<Output>> {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn()?;
    let leader = child.id();
    let mut ended = std::pin::pin!(child.wait_with_output());
    tokio::select! {
        output = &mut ended => output.map(Some),
        () = stop.cancelled() => {
            if let Some(leader) = leader {
                kill_group(leader);
            }
            // Returns after the last process of the group has closed its output, so none of them still
            // writes.
            ended.await.map(|_| None)
        }
    }
}

/// Keeps `initdb`'s own `postgresql.conf`, which fits locale and shared memory of this machine, and includes
/// Quipu's settings after it.
fn include_our_settings(cluster: &Directory, account: &Account) -> Result<(), Error> {
    let path = cluster.path().join("postgresql.conf");
    let mut file = cluster.open_file("postgresql.conf", OFlag::O_WRONLY | OFlag::O_APPEND, account)?;
    let text = "\n# Added by Quipu, which writes the files in there at every start.\ninclude_dir 'conf.d'\n";
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).at("write", &path)
}

fn remove_drafts(folder: &Folder) -> Result<(), Error> {
    let root = folder.root().path();
    for entry in fs::read_dir(root).at("read", root)?.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(DRAFT) {
            // An orphaned initdb may still write into the folder. The next start removes the remainder.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Writes the implementation's settings, and after them the settings that Quipu needs to find its server.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn configure(
    folder: &Folder,
    implementation: &str,
    port: u16,
    cluster_name: &str,
) -> Result<(), Error> {
    let cluster = folder.cluster_path();
    let missing = || Error::Io { action: "open", path: cluster, source: std::io::ErrorKind::NotFound.into() };
    let conf_d = folder.cluster()?.ok_or_else(missing)?.private("conf.d", folder.account())?;
    conf_d.write("10-implementation.conf", implementation, Some(folder.account()))?;
    let ours = format!(
        "{SETTINGS}
# Written by Quipu at every start.
listen_addresses = '{LOOPBACK}'
port = {port}
unix_socket_directories = {sockets}
# Appears in the title of each process, so that a later start can recognise orphans of this folder.
cluster_name = '{cluster_name}'
# A new file each day and at this size. Quipu removes the oldest files.
log_destination = 'stderr'
logging_collector = on
log_directory = {logs}
log_filename = '{prefix}%Y-%m-%d_%H%M%S.log'
log_rotation_age = 1d
log_rotation_size = {size}MB
",
        sockets = quoted(folder.run().path()),
        logs = quoted(folder.logs().path()),
        prefix = log_files::PREFIX,
        size = log_files::FILE_MIB_MAX,
    );
    conf_d.write("20-quipu.conf", &ours, Some(folder.account()))
}

/// A path as a quoted value in `postgresql.conf`.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\\', "\\\\").replace('\'', "''"))
}

fn prefixed(option: &str, path: &Path) -> PathBuf {
    let mut text = std::ffi::OsString::from(option);
    text.push(path);
    text.into()
}
