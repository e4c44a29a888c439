//! Makes the cluster's folder, whole or not at all, and writes its configuration.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use rand::{Rng, distr::Alphanumeric};

use super::{
    address::LOOPBACK,
    binaries::PostgresPrograms,
    credentials::Kept,
    daemon::plain_command,
    error::{At, Error},
    folder::{Folder, sync_folder},
};

/// Begins the names of folders that `initdb` works in. Each gets a name of its own: an `initdb` that outlived a
/// killed Quipu must not write into its successor's.
const DRAFT: &str = "postgres.new-";

/// The major version of the folder's cluster; nothing if there is no cluster yet.
///
/// # Errors
/// [`Error::Io`] when there is a cluster whose version cannot be read.
pub(super) fn major_version(cluster: &Path) -> Result<Option<u32>, Error> {
    if !cluster.exists() {
        return Ok(None);
    }
    let path = cluster.join("PG_VERSION");
    let text = fs::read_to_string(&path).at("read", &path)?;
    let invalid = |error| Error::Io {
        action: "understand",
        path,
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
    };
    text.trim().parse().map(Some).map_err(invalid)
}

/// Makes the cluster in a draft folder and renames it when everything is on disk.
///
/// # Errors
/// [`Error::Initdb`], [`Error::Io`].
pub(super) async fn create(folder: &Folder, programs: &PostgresPrograms, kept: &Kept) -> Result<(), Error> {
    remove_drafts(folder)?;
    let unique: String = rand::rng().sample_iter(Alphanumeric).take(8).map(char::from).collect();
    let draft = folder.root().join(format!("{DRAFT}{unique}"));
    folder.make_private(&draft)?;
    let password_file = folder.run().join("initdb-password");
    folder.write_for_servers(&password_file, kept.superuser.expose())?;

    let mut command = plain_command(&programs.initdb, folder.account());
    command
        .args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
        ])
        .arg(prefixed("--pwfile=", &password_file))
        .arg(prefixed("--pgdata=", &draft))
        .current_dir(folder.run())
        .stdin(Stdio::null());
    let output = tokio::process::Command::from(command).kill_on_drop(true).output().await;
    fs::remove_file(&password_file).at("remove", &password_file)?;
    let output = output.at("run", &programs.initdb)?;
    if !output.status.success() {
        remove_drafts(folder)?;
        let said = [output.stdout, output.stderr].concat();
        return Err(Error::Initdb { output: String::from_utf8_lossy(&said).trim().to_owned() });
    }

    include_our_settings(&draft)?;
    let cluster = folder.postgres();
    fs::rename(&draft, &cluster).at("make", &cluster)?;
    sync_folder(folder.root())
}

/// `initdb`'s own `postgresql.conf` stays (it knows locale and shared memory of this machine); ours come after it.
fn include_our_settings(cluster: &Path) -> Result<(), Error> {
    let path = cluster.join("postgresql.conf");
    let mut text = fs::read_to_string(&path).at("read", &path)?;
    text.push_str(
        "\n# Added by Quipu, which writes the files in there at every start.\ninclude_dir 'conf.d'\n",
    );
    // Written in place to keep owner and mode.
    fs::write(&path, text).at("write", &path)?;
    fs::File::open(&path).and_then(|file| file.sync_all()).at("sync", &path)
}

fn remove_drafts(folder: &Folder) -> Result<(), Error> {
    let root = folder.root();
    for entry in fs::read_dir(root).at("read", root)?.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(DRAFT) {
            // An orphaned initdb may still write into it; then the next start removes what remains.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Writes the caller's settings, and after them those without which Quipu would not find its server.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn configure(folder: &Folder, theirs: &str, port: u16, cluster_name: &str) -> Result<(), Error> {
    let conf_d = folder.postgres().join("conf.d");
    folder.make_private(&conf_d)?;
    folder.write_for_servers(&conf_d.join("10-implementation.conf"), theirs)?;
    let ours = format!(
        "# Written by Quipu at every start.
listen_addresses = '{LOOPBACK}'
port = {port}
unix_socket_directories = {sockets}
# Names the processes of this folder, so that a later start can tell its orphans from other people's.
cluster_name = '{cluster_name}'
password_encryption = 'scram-sha-256'
# Monthly partitions: one query may lock hundreds of them.
max_locks_per_transaction = 1024
# A week of logs, one file for each day.
log_destination = 'stderr'
logging_collector = on
log_directory = {logs}
log_filename = 'postgresql-%a.log'
log_rotation_age = 1d
log_rotation_size = 0
log_truncate_on_rotation = on
",
        sockets = quoted(&folder.run()),
        logs = quoted(&folder.logs()),
    );
    folder.write_for_servers(&conf_d.join("20-quipu.conf"), &ours)
}

/// A path as a value in `postgresql.conf`.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\\', "\\\\").replace('\'', "''"))
}

fn prefixed(option: &str, path: &Path) -> PathBuf {
    let mut text = std::ffi::OsString::from(option);
    text.push(path);
    text.into()
}
