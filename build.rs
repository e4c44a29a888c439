//! Copies `implementations/` to the build folder, from where it is compiled in: without `.env` files,
//! which hold secrets, and so that cargo notices new files.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

const SOURCE: &str = "implementations";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed={SOURCE}");
    println!("cargo:rerun-if-changed=seeds");
    let target = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is unset"))?);
    let target = target.join(SOURCE);
    match fs::remove_dir_all(&target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => copy(Path::new(SOURCE), &target),
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        if path.is_dir() {
            copy(&path, &to.join(name))?;
        } else if name != ".env" {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
