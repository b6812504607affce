//! Where the programs under test are. What is missing is an error that names the command to run.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The folder of the reference plugins, as Debian installs them.
pub const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// The folder of the reference plugins that tests compare with: those of the system, unless `REFERENCE_CNI_PATH` names
/// another folder.
pub fn reference_dir() -> PathBuf {
    let given = std::env::var_os("REFERENCE_CNI_PATH").filter(|dir| !dir.is_empty());
    given.map_or_else(|| REFERENCE_PLUGINS.into(), PathBuf::from)
}

/// One of our own binaries, as `make build` leaves them in `target/release`; `WEFT_BIN_DIR` names another folder.
pub fn weft(name: &str) -> Result<PathBuf> {
    present(name, weft_dir().join(name), "make build")
}

/// The folder of our own binaries.
pub fn weft_dir() -> PathBuf {
    match std::env::var_os("WEFT_BIN_DIR") {
        Some(dir) => dir.into(),
        None => target_dir().join("release"),
    }
}

/// The program that `weft-cni` is measured against.
pub fn bare() -> Result<PathBuf> {
    present("weft-bare", weft_dir().join("examples/weft-bare"), "make build")
}

/// The pinned Envoy, as `scripts/envoy` leaves it in the cache; `WEFT_ENVOY` names another one.
pub fn envoy() -> Result<PathBuf> {
    let path = match std::env::var_os("WEFT_ENVOY") {
        Some(path) => path.into(),
        None => cache_dir().join("weft/envoy-1.40.0/envoy"),
    };
    present("Envoy", path, "make envoy")
}

/// A program of the system.
pub fn system(name: &str) -> Result<PathBuf> {
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    present(name, found.unwrap_or_else(|| Path::new("/usr/bin").join(name)), "make setup")
}

/// One of the reference plugins.
pub fn reference(name: &str) -> Result<PathBuf> {
    present(name, reference_dir().join(name), "make setup")
}

fn present(program: &str, path: PathBuf, remedy: &'static str) -> Result<PathBuf> {
    if path.exists() { Ok(path) } else { Err(Error::Missing { program: program.to_owned(), path, remedy }) }
}

fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target"),
    }
}

fn cache_dir() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map_or_else(home, PathBuf::from)
}
