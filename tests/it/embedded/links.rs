//! Links that another user plants in the data folder: what they lead to is neither opened nor changed.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use quipu::store::embedded::{Embedded, Error};
use tempfile::TempDir;

use super::kit::{config, folder};

/// The user id of `nobody`, who plants the links when the tests run as root.
const ATTACKER: u32 = 65_534;

/// A file and a folder that nothing may change.
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

/// Puts a link in place of what is there, and keeps that aside.
fn plant(path: &Path, target: &Path) {
    if path.symlink_metadata().is_ok() {
        fs::rename(path, aside(path)).unwrap();
    }
    symlink(target, path).unwrap();
    if geteuid().is_root() {
        lchown(path, Some(ATTACKER), Some(ATTACKER)).unwrap();
    }
}

fn take_away(path: &Path) {
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

/// A start that is refused because of what was planted at `path`.
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
    files_that_are_replaced(&victim, &data).await;
    files_that_are_opened(&victim, &data).await;
    if geteuid().is_root() {
        folders_of_another_user(&victim, &data).await;
    }
    Embedded::start(config(&data)).await.unwrap().stop().await;
}

/// What is written whole takes the link's place: the start goes on. Some of it is planted before `initdb` runs.
async fn files_that_are_replaced(victim: &Victim, data: &Path) {
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
    // The postmaster, who is not root, does not write through it either.
    fs::remove_file(data.join("postgres/postmaster.pid")).unwrap();
    Embedded::start(config(data)).await.unwrap().stop().await;
    victim.assert_unchanged(data);
}

/// What is opened where it stands is refused, and named.
async fn files_that_are_opened(victim: &Victim, data: &Path) {
    for name in ["quipu.lock", "logs/postgresql.log", "logs/pgbouncer.log"] {
        let path = data.join(name);
        plant(&path, &victim.file);
        assert_refused(data, &path).await;
        victim.assert_unchanged(&path);
        take_away(&path);
    }
    for name in ["credentials.json", "postgres/PG_VERSION"] {
        let path = data.join(name);
        plant(&path, &victim.file);
        let error = Embedded::start(config(data)).await.unwrap_err().to_string();
        assert!(error.contains(name) && !error.contains("the victim's own"), "{error}");
        victim.assert_unchanged(&path);
        take_away(&path);
    }
    if geteuid().is_root() {
        // A second name of another user's file, where the system allows to make one.
        let log = data.join("logs/postgresql.log");
        fs::rename(&log, aside(&log)).unwrap();
        fs::hard_link(&victim.file, &log).unwrap();
        assert_refused(data, &log).await;
        victim.assert_unchanged(&log);
        take_away(&log);
    }
}

/// As root, a link that another user made is no way to a folder; one that root made in a folder of root's is.
async fn folders_of_another_user(victim: &Victim, data: &Path) {
    for name in ["run", "logs", "pgbouncer", "postgres", "postgres/conf.d"] {
        let path = data.join(name);
        plant(&path, &victim.folder);
        assert_refused(data, &path).await;
        victim.assert_unchanged(&path);
        take_away(&path);
    }
    let link = victim.path("link");
    plant(&link, &victim.folder);
    assert_refused(&link, &link).await;
    victim.assert_unchanged(&link);

    let link = victim.path("mine");
    symlink(data, &link).unwrap();
    Embedded::start(config(&link)).await.unwrap().stop().await;
}
