//! What runtimes keep of an ADD: the files that libcni writes into `/var/lib/cni/results` (`cachedInfo` in
//! `libcni/api.go`). They are read and never written.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use weft_cni_spec::Args;
use weft_ipam::lease::{Attachment, Pod};

use crate::Error;

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(super) path: PathBuf,
    pub(crate) attachment: Attachment,
    /// The configuration as it was at ADD.
    pub(super) configuration: Map<String, Value>,
    pub(super) args: Args,
    /// What the runtime had for all capabilities, whichever plugin has them.
    pub(super) capabilities: Map<String, Value>,
    pub(super) netns: Option<PathBuf>,
    pub(super) result: Option<Value>,
}

impl Kept {
    pub(super) fn pod(&self) -> Option<Pod> {
        Pod::from_args(&self.args)
    }

    /// Whether `address` is in the result, of whatever version.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let ip = |held: &Value| held.as_str()?.split('/').next()?.parse::<IpAddr>().ok();
        let result = self.result.as_ref();
        let list = result.and_then(|result| result.get("ips")?.as_array());
        let of_list = list.into_iter().flatten().filter_map(|held| ip(held.get("address")?));
        let before_03 = ["ip4", "ip6"].into_iter().filter_map(|key| ip(result?.get(key)?.get("ip")?));
        of_list.chain(before_03).any(|held| held == address)
    }
}

/// All that there are below `dir`. A file that is none is passed over: the directory is somebody else's.
///
/// # Errors
/// Where it may not be read: what cannot be seen is not nothing.
pub(super) fn all(dir: &Path) -> Result<Vec<Kept>, Error> {
    let path = dir.join("results");
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Error::ConfigFile { path, source: error });
        }
        entries => entries.into_iter().flatten().flatten(),
    };
    Ok(entries.filter_map(|entry| parse(&entry.path(), &fs::read(entry.path()).ok()?)).collect())
}

fn parse(path: &Path, bytes: &[u8]) -> Option<Kept> {
    let document: Value = serde_json::from_slice(bytes).ok()?;
    let text = |key: &str| document.get(key).and_then(Value::as_str);
    if text("kind")? != "cniCacheV1" {
        return None;
    }
    let configuration = serde_json::from_slice(&base64(text("config")?)?).ok()?;
    let result = document.get("result").filter(|result| result.is_object()).cloned();
    let netns = text("netns").filter(|path| !path.is_empty()).map(PathBuf::from);
    let ifname = text("ifName")?;
    Some(Kept {
        path: path.to_owned(),
        attachment: Attachment::new(text("networkName")?, text("containerId")?, ifname).ok()?,
        configuration,
        args: args(document.get("cniArgs")),
        capabilities: document.get("capabilityArgs").and_then(Value::as_object).cloned().unwrap_or_default(),
        // Older releases keep it in the result alone.
        netns: netns.or_else(|| sandbox(result.as_ref()?, ifname)),
        result,
    })
}

/// A list of pairs.
fn args(list: Option<&Value>) -> Args {
    let pairs = list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_array);
    let text = pairs.filter_map(|pair| match pair.as_slice() {
        [Value::String(key), Value::String(value)] => Some(format!("{key}={value}")),
        _ => None,
    });
    Args::parse(&text.collect::<Vec<_>>().join(";")).unwrap_or_default()
}

fn sandbox(result: &Value, ifname: &str) -> Option<PathBuf> {
    let interfaces = result.get("interfaces")?.as_array()?.iter();
    let mut named =
        interfaces.filter(|interface| interface.get("name").and_then(Value::as_str) == Some(ifname));
    named
        .find_map(|interface| interface.get("sandbox")?.as_str())
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// RFC 4648, section 4, as Go writes bytes.
fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, held) = ((bits << 6) | u32::from(value), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(base64(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(base64("+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
        assert_eq!(base64("a b"), None);
    }

    #[test]
    fn a_kept_result_is_read_as_libcni_writes_it() {
        let mut document = json!({
            "kind": "cniCacheV1", "containerId": "c1", "ifName": "eth0", "networkName": "pods",
            "config": "eyJuYW1lIjoicG9kcyJ9",
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "web"]],
            "capabilityArgs": {"mac": "02:00:00:00:00:01"},
            "result": {"interfaces": [{"name": "eth0"}, {"name": "eth0", "sandbox": "/n"}]},
        });
        let kept = |document: &Value| parse("f".as_ref(), document.to_string().as_bytes());
        let found = kept(&document).unwrap();
        assert_eq!(found.configuration["name"], "pods");
        assert_eq!(found.pod().unwrap().to_string(), "shop/web");
        assert_eq!(found.netns, Some("/n".into()));
        assert!(!found.has([10, 1, 0, 2].into()));
        for result in [json!({"ips": [{"address": "10.1.0.2/24"}]}), json!({"ip4": {"ip": "10.1.0.2/24"}})] {
            document["result"] = result;
            let found = kept(&document).unwrap();
            assert!(found.has([10, 1, 0, 2].into()) && !found.has([10, 1, 0, 3].into()));
        }
        document["netns"] = "/m".into();
        assert_eq!(kept(&document).unwrap().netns, Some("/m".into()));
        document["kind"] = "other".into();
        assert!(kept(&document).is_none());
        assert!(parse("f".as_ref(), b"no").is_none());
    }
}
