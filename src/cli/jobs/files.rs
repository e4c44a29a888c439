//! Files to submit: which they are, and their hashes. A pointer of Git LFS stands for the file that it names.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use indicatif::ProgressBar;

use crate::cli::digest::digest;

/// Folders below one that is named, at most. Links are not followed.
pub(super) const DEPTH_MAX: usize = 64;

/// A file with its hash.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// Hex digits of its SHA-256.
    pub(super) sha256: String,
    /// Bytes.
    pub(super) size: u64,
    /// Whether the file here is a pointer of Git LFS to this content.
    pub(super) is_pointer: bool,
}

/// Longest pointer of Git LFS, bytes, as its specification has it.
const POINTER_BYTES_MAX: u64 = 1_024;

/// The first line of a pointer of Git LFS.
const POINTER_VERSION: &str = "version https://git-lfs.github.com/spec/v1";

/// The files of these paths. Of a folder those below it that are of the type, as in the original: of type
/// `pdf` the files whose names end in `.pdf`, of another type all. Hidden files are left out.
pub(super) fn find(paths: &[PathBuf], job_type: &str, depth_max: usize) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let about = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        if about.is_dir() {
            let before = found.len();
            below(path, job_type, depth_max, &mut found)?;
            if found.len() == before {
                bail!("{} has no file of type {job_type}", path.display());
            }
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn below(folder: &Path, job_type: &str, levels: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            if levels > 0 {
                below(&path, job_type, levels - 1, found)?;
            }
        } else if kind.is_file() && is_of(&path, job_type) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_of(path: &Path, job_type: &str) -> bool {
    let end = path.extension().unwrap_or_default();
    job_type != "pdf" || end.eq_ignore_ascii_case("pdf")
}

/// Reads a file for its hash, and moves the bar by what was read.
pub(super) fn hashed(path: &Path, bar: &ProgressBar) -> Result<Source> {
    let read = || -> io::Result<Source> {
        if let Some(source) = pointed_at(path)? {
            return Ok(source);
        }
        let (sha256, size) = digest(path, bar)?;
        Ok(Source { path: path.to_path_buf(), sha256: sha256.to_string(), size, is_pointer: false })
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// What a pointer of Git LFS stands for; `None` if the file is none.
fn pointed_at(path: &Path) -> io::Result<Option<Source>> {
    let file = File::open(path)?;
    if file.metadata()?.len() > POINTER_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(POINTER_BYTES_MAX).read_to_end(&mut bytes)?;
    let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
    if text.lines().next() != Some(POINTER_VERSION) {
        return Ok(None);
    }
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let sha256 = value("oid").and_then(|oid| oid.strip_prefix("sha256:"));
    let sha256 =
        sha256.filter(|hash| hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let size = value("size").and_then(|size| size.parse().ok());
    Ok(sha256.zip(size).map(|(sha256, size)| Source {
        path: path.to_path_buf(),
        sha256: sha256.to_owned(),
        size,
        is_pointer: true,
    }))
}

/// Tags from the place of a file below a folder, as in the original: its folders, and its name without ending.
pub(super) fn tags_of(folder: &Path, path: &Path) -> Vec<String> {
    let place = path.strip_prefix(folder).unwrap_or(path).with_extension("");
    let parts = place.components().filter_map(|part| match part {
        std::path::Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_files_of_the_type_and_a_file_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("deep/er")).unwrap();
        for name in ["b.PDF", "a.txt", ".hidden.pdf", "deep/er/c.pdf"] {
            std::fs::write(at(name), name).unwrap();
        }
        let all = |paths: &[PathBuf], job_type| find(paths, job_type, DEPTH_MAX).unwrap();
        assert_eq!(all(&[folder.path().into()], "pdf"), [at("b.PDF"), at("deep/er/c.pdf")]);
        assert_eq!(all(&[folder.path().into()], "image").len(), 3);
        assert_eq!(all(&[at("a.txt")], "pdf"), [at("a.txt")]);
        assert_eq!(find(&[folder.path().into()], "pdf", 0).unwrap(), [at("b.PDF")]);
        assert_eq!(tags_of(folder.path(), &at("deep/er/c.pdf")), ["deep", "er", "c"]);
        assert!(find(&[at("missing")], "pdf", 0).unwrap_err().to_string().contains("missing"));
        std::fs::create_dir(at("empty")).unwrap();
        assert!(find(&[at("empty")], "pdf", 0).unwrap_err().to_string().contains("no file of type pdf"));
    }

    #[test]
    fn a_hash_is_that_of_the_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "abc").unwrap();
        let source = hashed(&path, &ProgressBar::hidden()).unwrap();
        assert_eq!(source.size, 3);
        assert_eq!(source.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_pointer_of_git_lfs_stands_for_the_file_that_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pdf");
        let hash = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";
        let read = |text: String| {
            std::fs::write(&path, text).unwrap();
            hashed(&path, &ProgressBar::hidden()).unwrap()
        };
        let source = read(format!("{POINTER_VERSION}\noid sha256:{hash}\nsize 12345\n"));
        assert_eq!((source.sha256.as_str(), source.size, source.is_pointer), (hash, 12_345, true));
        for other in
            [format!("oid sha256:{hash}\nsize 1\n"), format!("{POINTER_VERSION}\noid sha256:zz\nsize 1\n")]
        {
            assert!(!read(other).is_pointer);
        }
    }
}
