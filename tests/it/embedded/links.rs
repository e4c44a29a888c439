//! Links that another user plants in the data folder: their targets are neither opened nor changed.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use quipu::store::embedded::{Embedded, Error};
use tempfile::TempDir;

use super::kit::{config, folder};

/// The user id of `nobody`, which plants the links when the tests run as root.
const ATTACKER: u32 = 65_534;

/// A file and a folder that must stay unchanged.
struct Victim {
    world: TempDir,
    file: PathBuf,
    folder: PathBuf,
}

impl Victim {
    fn new() -> Self {
        let world = folder();
        let [file, folder] = ["file", "folder"].map(|name| world.path().join(name));
        fs::write(&file, "the victim's own\n").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        Self { world, file, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path().join(name)
    }

    fn assert_unchanged(&self, planted: &Path) {
        let planted = planted.display();
        assert_eq!(fs::read_to_string(&self.file).unwrap(), "the victim's own\n", "{planted}");
        for (path, mode) in [(&self.file, 0o640), (&self.folder, 0o755)] {
            let found = path.metadata().unwrap();
            assert_eq!(found.mode() & 0o7777, mode, "{planted}");
            assert_eq!(found.uid(), geteuid().as_raw(), "{planted}");
        }
        assert_eq!(fs::read_dir(&self.folder).unwrap().count(), 0, "{planted}");
    }
}

/// Replaces an entry by a link, and keeps the entry aside.
fn plant(path: &Path, target: &Path) {
    if path.symlink_metadata().is_ok() {
        fs::rename(path, aside(path)).unwrap();
    }
    symlink(target, path).unwrap();
    if geteuid().is_root() {
        lchown(path, Some(ATTACKER), Some(ATTACKER)).unwrap();
    }
}

fn remove_and_restore(path: &Path) {
    fs::remove_file(path).unwrap();
    if aside(path).symlink_metadata().is_ok() {
        fs::rename(aside(path), path).unwrap();
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".aside");
    name.into()
}

/// Starts Quipu, which must refuse because of the entry at `path`.
async fn assert_refused(data: &Path, path: &Path) {
    let error = Embedded::start(config(data)).await.unwrap_err();
    let Error::Planted { path: named, .. } = &error else { panic!("{}: {error}", path.display()) };
    assert_eq!(named, path, "{error}");
    assert!(error.to_string().contains("check it, remove it, and start again"), "{error}");
}

#[tokio::test]
async fn a_planted_link_never_leads_out_of_the_data_folder() {
    let victim = Victim::new();
    let data = victim.path("data");
    replaced_files(&victim, &data).await;
    opened_files(&victim, &data).await;
    if geteuid().is_root() {
        folders_of_another_user(&victim, &data).await;
    }
    Embedded::start(config(&data)).await.unwrap().stop().await;
}

/// Files that Quipu writes atomically replace the link, so the start succeeds. Some links are planted before
/// `initdb` runs.
async fn replaced_files(victim: &Victim, data: &Path) {
    for name in ["run", "pgbouncer"] {
        fs::create_dir_all(data.join(name)).unwrap();
    }
    let names = ["pgbouncer.ini", "users.txt", "databases.ini", "here.ini", "pgbouncer.pid"];
    let mut planted: Vec<PathBuf> = names.iter().map(|name| data.join("pgbouncer").join(name)).collect();
    planted.push(data.join("run/initdb-password"));
    planted.push(data.join("credentials.json.draft"));
    let drafts: Vec<PathBuf> =
        planted.iter().map(|path| PathBuf::from(format!("{}.draft", path.display()))).collect();
    planted.extend(drafts);
    for path in &planted {
        plant(path, &victim.file);
    }
    Embedded::start(config(data)).await.unwrap().stop().await;
    victim.assert_unchanged(data);
    for name in ["conf.d/10-implementation.conf", "conf.d/20-quipu.conf", "postmaster.pid"] {
        plant(&data.join("postgres").join(name), &victim.file);
    }
    // The postmaster, which does not run as root, does not write through the link either.
    fs::remove_file(data.join("postgres/postmaster.pid")).unwrap();
    Embedded::start(config(data)).await.unwrap().stop().await;
    victim.assert_unchanged(data);
}

/// Files that Quipu opens in place are refused, with their path.
async fn opened_files(victim: &Victim, data: &Path) {
    for name in ["quipu.lock", "logs/postgresql.log", "logs/pgbouncer.log"] {
        let path = data.join(name);
        plant(&path, &victim.file);
        assert_refused(data, &path).await;
        victim.assert_unchanged(&path);
        remove_and_restore(&path);
    }
    for name in ["credentials.json", "postgres/PG_VERSION"] {
        let path = data.join(name);
        plant(&path, &victim.file);
        let error = Embedded::start(config(data)).await.unwrap_err().to_string();
        assert!(error.contains(name) && !error.contains("the victim's own"), "{error}");
        victim.assert_unchanged(&path);
        remove_and_restore(&path);
    }
    if geteuid().is_root() {
        // A hard link to another user's file, if the system allows creating one.
        let log = data.join("logs/postgresql.log");
        fs::rename(&log, aside(&log)).unwrap();
        fs::hard_link(&victim.file, &log).unwrap();
        assert_refused(data, &log).await;
        victim.assert_unchanged(&log);
        remove_and_restore(&log);
    }
}

/// Root does not follow a link to a folder that another user made, but follows a link that root made in a
/// folder of root.
async fn folders_of_another_user(victim: &Victim, data: &Path) {
    for name in ["run", "logs", "pgbouncer", "postgres", "postgres/conf.d"] {
        let path = data.join(name);
        plant(&path, &victim.folder);
        assert_refused(data, &path).await;
        victim.assert_unchanged(&path);
        remove_and_restore(&path);
    }
    let link = victim.path("link");
    plant(&link, &victim.folder);
    assert_refused(&link, &link).await;
    victim.assert_unchanged(&link);

    let link = victim.path("mine");
    symlink(data, &link).unwrap();
    Embedded::start(config(&link)).await.unwrap().stop().await;
}
