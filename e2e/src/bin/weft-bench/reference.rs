//! The reference plugins: which there are, and what they can do.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use weft_e2e::{Error, Result, binaries, cni, output};

use crate::contestant::Contestant;
use crate::shape;

/// What the reference plugins keep their firewall rules with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Iptables,
    Nftables,
}

impl Backend {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Reference {
    dir: PathBuf,
    /// The newest version of the protocol that they speak: Debian's do not know their own version.
    protocol: String,
    /// Which of the two programs of this name there is, in its own words.
    iptables: String,
    /// Why they are not measured with nftables, if they are not.
    without_nftables: Option<String>,
}

impl Reference {
    /// The plugins that a pod is attached with.
    pub(crate) const PLUGINS: [&str; 4] = ["bridge", "host-local", "portmap", "bandwidth"];

    pub(crate) fn find() -> Result<Self> {
        let dir = binaries::reference_dir();
        let mut plugins = Self::PLUGINS.iter().map(|name| ((*name).to_owned(), dir.join(name)));
        if let Some((program, path)) = plugins.find(|(_, path)| !path.is_file()) {
            return Err(Error::Missing { program, path, remedy: "make setup" });
        }
        let iptables = output(Command::new(binaries::system("iptables")?).arg("--version"))?;
        let (protocol, without_nftables) = (protocol(&dir)?, without_nftables(&dir)?);
        Ok(Self { protocol, without_nftables, iptables: iptables.trim().to_owned(), dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn backends(&self) -> Vec<Backend> {
        match self.without_nftables {
            None => vec![Backend::Iptables, Backend::Nftables],
            Some(_) => vec![Backend::Iptables],
        }
    }

    pub(crate) fn contestants(&self) -> Result<Vec<Contestant>> {
        self.backends().into_iter().map(|backend| Contestant::reference(backend, &self.dir)).collect()
    }

    /// What they are, and what of them is not measured.
    pub(crate) fn about(&self) -> String {
        let (dir, protocol) = (self.dir.display(), &self.protocol);
        let nftables = match &self.without_nftables {
            None => "and with nftables".to_owned(),
            Some(why) => {
                format!("NOT MEASURED with nftables ({why}); REFERENCE_CNI_PATH can name newer ones")
            }
        };
        format!("reference plugins: {dir}, CNI up to {protocol}, with {}, {nftables}", self.iptables)
    }
}

fn protocol(dir: &Path) -> Result<String> {
    let answer = cni::call_here(&dir.join("bridge"), &[("CNI_COMMAND", "VERSION".into())], "{}")?.json()?;
    let newest = answer.pointer("/supportedVersions").and_then(Value::as_array).and_then(|all| all.last());
    let newest = newest.and_then(Value::as_str).map(str::to_owned);
    newest.ok_or_else(|| shape("the versions that bridge speaks", &answer.to_string()))
}

/// Plugins that do not know the backend use the other one without a word, or fail where there is none.
fn without_nftables(dir: &Path) -> Result<Option<String>> {
    match Contestant::reference(Backend::Nftables, dir) {
        Ok(_) => Ok(None),
        Err(Error::Plugin(refusal)) => Ok(Some(refusal.to_string())),
        Err(error) => Err(error),
    }
}
