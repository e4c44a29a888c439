//! Notes about uploads in parts that are not completed: which parts the storage has. S3 servers cannot be asked for
//! that by a signed URL.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::base::{Clock as _, SystemClock};
use crate::config::Environment;

/// Age from which a note is deleted: the server gives an upload in parts one day.
const AGE_MAX: Duration = Duration::from_hours(48);

/// An upload in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// URL of the server.
    pub(super) server: String,
    /// Key of the object.
    pub(super) key: String,
    /// Bytes of the object, and of each part but the last.
    pub(super) size: u64,
    pub(super) part_size: u64,
    /// The server's name of the upload. Without a credential it is of no use.
    pub(super) upload_id: String,
    /// `ETag`s of the parts that have arrived, by their numbers from 1.
    pub(super) etags: BTreeMap<u32, String>,
}

impl Begun {
    /// Number of parts.
    pub(super) fn parts(&self) -> u32 {
        u32::try_from(self.size.div_ceil(self.part_size.max(1))).unwrap_or(u32::MAX)
    }

    /// Bytes of the parts that have arrived.
    pub(super) fn arrived(&self) -> u64 {
        self.etags.keys().map(|part| self.place(*part).1).sum()
    }

    /// Beginning and length of a part in the file, bytes.
    pub(super) fn place(&self, part: u32) -> (u64, u64) {
        let from = u64::from(part.saturating_sub(1)).saturating_mul(self.part_size).min(self.size);
        (from, self.part_size.min(self.size - from))
    }
}

/// The folder of notes, `quipu/uploads` in the user's folder for state.
#[derive(Debug)]
pub(super) struct Notes(PathBuf);

impl Notes {
    /// The folder by `XDG_STATE_HOME` or `HOME`; `None` if neither is set. It is created with the first note.
    pub(super) fn of(environment: &Environment) -> Option<Self> {
        let given = environment.get("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let state = given.or_else(|| Some(Path::new(environment.get("HOME")?).join(".local/state")))?;
        Some(Self(state.join("quipu/uploads")))
    }

    fn path(&self, server: &str, key: &str) -> PathBuf {
        let name = Sha256::new().chain_update(server).chain_update("\n").chain_update(key).finalize();
        self.0.join(format!("{}.json", hex::encode(name)))
    }

    /// The note about this object; `None` if there is none, or none that can be used.
    pub(super) fn find(&self, server: &str, key: &str, size: u64) -> Option<Begun> {
        let text = std::fs::read(self.path(server, key)).ok()?;
        let begun: Begun = serde_json::from_slice(&text).ok()?;
        let is_it = begun.server == server && begun.key == key && begun.size == size && begun.part_size > 0;
        is_it.then_some(begun)
    }

    /// Writes a note in place of an older one about the same object.
    pub(super) fn keep(&self, begun: &Begun) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let mut file = NamedTempFile::new_in(&self.0)?;
        serde_json::to_writer(&mut file, begun)?;
        file.persist(self.path(&begun.server, &begun.key))?;
        Ok(())
    }

    /// Deletes the note about this object.
    pub(super) fn forget(&self, server: &str, key: &str) {
        // One that stays is found to be of no use.
        let _ = std::fs::remove_file(self.path(server, key));
    }

    /// Deletes notes about uploads whose time is over.
    pub(super) fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(&self.0) else { return };
        let now = SystemTime::from(SystemClock.now());
        let is_old = |entry: &std::fs::DirEntry| {
            let changed = entry.metadata().and_then(|about| about.modified());
            changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > AGE_MAX))
        };
        for entry in entries.flatten().filter(is_old) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Begun {
        Begun {
            server: "http://127.0.0.1/".to_owned(),
            key: "sources/a".to_owned(),
            size: 25,
            part_size: 10,
            upload_id: "x".to_owned(),
            etags: BTreeMap::from([(2, "\"e\"".to_owned())]),
        }
    }

    #[test]
    fn the_parts_cover_the_file() {
        let begun = begun();
        let places: Vec<_> = (1..=begun.parts()).map(|part| begun.place(part)).collect();
        assert_eq!(places, [(0, 10), (10, 10), (20, 5)]);
        assert_eq!(begun.arrived(), 10);
    }

    #[test]
    fn a_note_is_found_for_its_object_alone_and_deleted_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::from_iter([("XDG_STATE_HOME", folder.path().to_str().unwrap())]);
        let (notes, begun) = (Notes::of(&environment).unwrap(), begun());
        let find = |server: &str, size| notes.find(server, "sources/a", size);
        assert_eq!(find(&begun.server, 25), None);
        notes.keep(&begun).unwrap();
        assert_eq!(find(&begun.server, 25), Some(begun.clone()));
        assert_eq!((find("http://127.0.0.2/", 25), find(&begun.server, 24)), (None, None));
        notes.sweep();
        let path = notes.path(&begun.server, &begun.key);
        let long_ago = SystemTime::from(SystemClock.now()) - AGE_MAX * 2;
        std::fs::File::open(&path).unwrap().set_modified(long_ago).unwrap();
        notes.sweep();
        assert!(!path.exists());
        notes.keep(&begun).unwrap();
        notes.forget(&begun.server, &begun.key);
        assert_eq!(find(&begun.server, 25), None);
    }

    #[test]
    fn without_a_folder_of_the_user_there_are_no_notes() {
        let of = |name, value| Notes::of(&Environment::from_iter([(name, value)])).map(|notes| notes.0);
        assert_eq!(of("PATH", "/bin"), None);
        assert_eq!(of("XDG_STATE_HOME", "relative"), None);
        assert_eq!(of("HOME", "/home/a"), Some(PathBuf::from("/home/a/.local/state/quipu/uploads")));
    }
}
