//! Leases of host-local, which a node has that has run with the reference plugins: they are taken over, so that no pod has to be
//! restarted and no address is given a second time.
//!
//! `weft-ipam import` does it, once for each directory of host-local's with an address of this node's subnets in it. It may be
//! repeated: what stands is not changed, and what was released since does not come back.

use std::fs::{self, DirEntry};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde_json::Value;
use tokio::process::Command;

use crate::aside::{aside, spawn};

/// It waits up to 30 s for a host-local that is at work.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where to look, and what with.
#[derive(Clone, Debug)]
pub(crate) struct Adoption {
    /// The installed `weft-ipam`.
    pub(crate) weft_ipam: PathBuf,
    /// Where host-local has a directory for each network.
    pub(crate) networks: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Adopted {
    /// How many leases are new.
    pub(crate) new: usize,
    /// How many stood already.
    pub(crate) known: usize,
    /// What a person should see to.
    pub(crate) remarks: Vec<String>,
}

/// Leases could not be taken over. Nothing is given out until they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The program did not run.
    #[error("cannot run {}", program.display())]
    Run { program: PathBuf, source: io::Error },
    /// It refused.
    #[error("cannot take over the leases in {}: {said}; docs/ipam.md has the ways out", dir.display())]
    Refused { dir: PathBuf, said: String },
}

impl Adoption {
    /// Takes over what there is. `list` is the configuration that the leases are for.
    ///
    /// # Errors
    /// Where a directory could not be taken over. Those before it have been.
    pub(crate) async fn run(&self, list: &Path, subnets: &[IpNetwork]) -> Result<Adopted, Error> {
        let mut adopted = Adopted::default();
        let (networks, subnets) = (self.networks.clone(), subnets.to_vec());
        for dir in aside(move || directories(&networks, &subnets)).await {
            let report = self.import(&dir, list).await?;
            adopted.add(&dir, &report);
        }
        Ok(adopted)
    }

    async fn import(&self, dir: &Path, list: &Path) -> Result<Value, Error> {
        let mut command = Command::new(&self.weft_ipam);
        command.args(["import", "--json", "--from-host-local"]).arg(dir).arg("--conf").arg(list);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let failed = |source| Error::Run { program: self.weft_ipam.clone(), source };
        let late = |_elapsed| failed(io::Error::new(io::ErrorKind::TimedOut, "it takes too long"));
        let import = async { spawn(&mut command).await?.wait_with_output().await };
        let output = tokio::time::timeout(PATIENCE, import).await.map_err(late)?.map_err(failed)?;
        // Also with conflicts there is a report, and the code 4.
        serde_json::from_slice(&output.stdout).map_err(|_no_report| {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Error::Refused { dir: dir.into(), said }
        })
    }
}

impl Adopted {
    fn add(&mut self, dir: &Path, report: &Value) {
        let count = |key| report.get(key).and_then(Value::as_array).map_or(0, Vec::len);
        self.new += count("imported");
        self.known += report.get("known").and_then(Value::as_u64).map_or(0, |known| known as usize);
        let conflicts = count("conflicts") + count("left");
        if conflicts > 0 {
            self.remarks.push(format!(
                "{conflicts} leases of host-local in {} could not be settled: `weft-ipam import --from-host-local {0} --conf` \
                 the network configuration names them",
                dir.display()
            ));
        }
    }
}

/// The directories below `networks` that hold addresses of `subnets` since this boot: no pod outlives one.
fn directories(networks: &Path, subnets: &[IpNetwork]) -> Vec<PathBuf> {
    let boot = crate::clock::boot();
    let is_held = |entry: DirEntry| {
        let address = entry.file_name().to_str().and_then(|name| name.parse::<IpAddr>().ok());
        let is_ours = address.is_some_and(|address| subnets.iter().any(|subnet| subnet.contains(address)));
        let is_older = || entry.metadata().and_then(|found| found.modified()).is_ok_and(|time| time < boot);
        is_ours && !is_older()
    };
    let entries = fs::read_dir(networks).into_iter().flatten().flatten();
    let mut dirs: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    dirs.retain(|dir| fs::read_dir(dir).into_iter().flatten().flatten().any(is_held));
    dirs.sort();
    dirs
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use serde_json::json;

    use super::*;

    #[test]
    fn only_directories_with_addresses_of_the_nodes_subnets_and_of_this_boot_count() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["cbr0/10.244.0.7", "cbr0/lock", "other/10.88.0.2", "old/10.244.0.9", "six/fd00::2"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "c1\r\neth0").unwrap();
        }
        let old = File::options().write(true).open(dir.path().join("old/10.244.0.9")).unwrap();
        old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let subnets = ["10.244.0.0/24", "fd00::/64"].map(|text| text.parse().unwrap());
        let found = directories(dir.path(), &subnets);
        assert_eq!(found, ["cbr0", "six"].map(|name| dir.path().join(name)));
        assert!(directories(&dir.path().join("missing"), &subnets).is_empty());
    }

    #[test]
    fn what_could_not_be_settled_is_remarked() {
        let mut adopted = Adopted::default();
        adopted.add(
            Path::new("/n/cbr0"),
            &json!({ "imported": [{}, {}], "known": 3, "conflicts": [{}], "left": [] }),
        );
        assert_eq!((adopted.new, adopted.known), (2, 3));
        assert!(adopted.remarks[0].starts_with("1 leases of host-local in /n/cbr0"), "{:?}", adopted.remarks);
    }
}
