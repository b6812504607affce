//! The one image of the suite: no registry is asked for it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::binaries;
use crate::error::{Doing, Result};
use crate::process;

/// Its name. It is busybox, which takes its applet as the first argument, and sleeps if there is none.
pub(crate) const NAME: &str = "weft.test/busybox:1";

/// Writes it as a docker-archive of one layer, which holds one static binary.
pub(crate) fn write(archive: &Path) -> Result<()> {
    let dir = archive.with_extension("parts");
    let doing = || format!("make an image in {}", dir.display());
    let root = dir.join("root");
    std::fs::create_dir_all(&root).doing(doing)?;
    std::fs::copy(binaries::system("busybox")?, root.join("busybox")).doing(doing)?;
    let (layer, manifest) = (dir.join("layer.tar"), dir.join("manifest.json"));
    process::output(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&layer).arg("busybox"))?;
    let sum = process::output(Command::new("sha256sum").arg(&layer))?;
    let digest = sum.split_whitespace().next().unwrap_or_default();
    std::fs::write(dir.join("config.json"), config(digest).to_string()).doing(doing)?;
    let entry = serde_json::json!([{ "Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"] }]);
    std::fs::write(&manifest, entry.to_string()).doing(doing)?;
    let files = ["manifest.json", "config.json", "layer.tar"];
    process::output(Command::new("tar").arg("-C").arg(&dir).arg("-cf").arg(archive).args(files)).map(drop)
}

fn config(layer: &str) -> Value {
    serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Entrypoint": ["/busybox"], "Cmd": ["sleep", "2147483647"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
    })
}
