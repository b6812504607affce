//! The runtime's side of CNI, as libcni does it: the agent asks what is installed, and knows nothing of pods itself.
//!
//! Each plugin is executed with exactly what the specification gives it and a deadline, at which it is killed. The agent's own
//! thread never waits for one.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::aside::spawn;
use crate::conflist::List;

/// STATUS and GC came with this version; a plugin may be asked in it whatever the list says.
const NEWEST: &str = "1.1.0";
/// Where plugins look for the system's programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Executes the plugins of a directory.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    /// Where they are.
    pub(crate) bin_dir: PathBuf,
    /// How long one of them may take.
    pub(crate) deadline: Duration,
}

/// What is attached.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    pub(crate) container: String,
    pub(crate) ifname: String,
    /// Where its namespace is, as long as there is one.
    pub(crate) netns: Option<PathBuf>,
}

/// A plugin did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be run.
    #[error("cannot run {}", plugin.display())]
    Run { plugin: PathBuf, source: std::io::Error },
    /// It was killed.
    #[error("{verb} by {plugin} took longer than {} ms and was killed", limit.as_millis())]
    Late { verb: &'static str, plugin: String, limit: Duration },
    /// It refused, in its own words.
    #[error("{verb} by {plugin} was refused with code {code}: {said}")]
    Refused { verb: &'static str, plugin: String, code: u64, said: String },
    /// What it printed is no answer.
    #[error("{verb} by {plugin} ended with {status} and without an answer: {said}")]
    Wordless { verb: &'static str, plugin: String, status: String, said: String },
}

impl Runtime {
    /// Attaches, and returns the result of the last plugin.
    pub(crate) async fn add(&self, list: &List, to: &Attachment) -> Result<Value, Error> {
        let mut result = None;
        for plugin in &list.plugins {
            let entry = list.entry(plugin, &list.version, result.as_ref());
            result = self.run("ADD", plugin, &entry, Some(to)).await?.or(result);
        }
        Ok(result.unwrap_or_default())
    }

    /// Whether all is as ADD left it.
    pub(crate) async fn check(&self, list: &List, of: &Attachment, result: &Value) -> Result<(), Error> {
        for plugin in &list.plugins {
            let entry = list.entry(plugin, &list.version, Some(result));
            self.run("CHECK", plugin, &entry, Some(of)).await?;
        }
        Ok(())
    }

    /// Detaches. All plugins are asked, in reverse; the first refusal is returned.
    pub(crate) async fn del(
        &self,
        list: &List,
        from: &Attachment,
        result: Option<&Value>,
    ) -> Result<(), Error> {
        let mut outcome = Ok(());
        for plugin in list.plugins.iter().rev() {
            let entry = list.entry(plugin, &list.version, result);
            outcome = outcome.and(self.run("DEL", plugin, &entry, Some(from)).await.map(drop));
        }
        outcome
    }

    /// Whether an ADD would succeed, as far as Weft's own plugins can tell. Others may be older than the verb.
    pub(crate) async fn status(&self, list: &List) -> Result<(), Error> {
        let is_ours = |plugin: &&Map<String, Value>| type_of(plugin).starts_with("weft-");
        for plugin in list.plugins.iter().filter(is_ours) {
            self.run("STATUS", plugin, &list.entry(plugin, NEWEST, None), None).await?;
        }
        Ok(())
    }

    async fn run(
        &self,
        verb: &'static str,
        plugin: &Map<String, Value>,
        entry: &Value,
        attachment: Option<&Attachment>,
    ) -> Result<Option<Value>, Error> {
        let name = type_of(plugin);
        let path = self.bin_dir.join(name);
        let answer = tokio::time::timeout(self.deadline, self.answer(&path, verb, entry, attachment)).await;
        let late = |_elapsed| Error::Late { verb, plugin: name.into(), limit: self.deadline };
        let output = answer.map_err(late)?.map_err(|source| Error::Run { plugin: path, source })?;
        let document = serde_json::from_slice(&output.stdout).ok();
        if output.status.success() {
            return Ok(document);
        }
        Err(refusal(verb, name, &output, document))
    }

    /// The child is killed where this is dropped.
    async fn answer(
        &self,
        path: &Path,
        verb: &str,
        entry: &Value,
        attachment: Option<&Attachment>,
    ) -> std::io::Result<std::process::Output> {
        let mut command = Command::new(path);
        command.env_clear().env("PATH", PATH).env("CNI_COMMAND", verb).env("CNI_PATH", &self.bin_dir);
        if let Some(Attachment { container, ifname, netns }) = attachment {
            command.env("CNI_CONTAINERID", container).env("CNI_IFNAME", ifname);
            command.env("CNI_NETNS", netns.as_deref().unwrap_or(Path::new("")));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = spawn(&mut command).await?;
        tell(&mut child, entry.to_string().as_bytes()).await?;
        child.wait_with_output().await
    }
}

/// A plugin that does not read all has its reasons, and its answer says more than a broken pipe.
async fn tell(child: &mut Child, text: &[u8]) -> std::io::Result<()> {
    let Some(mut stdin) = child.stdin.take() else { return Ok(()) };
    match stdin.write_all(text).await {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn type_of(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn refusal(
    verb: &'static str,
    plugin: &str,
    output: &std::process::Output,
    document: Option<Value>,
) -> Error {
    let plugin = plugin.to_owned();
    let text = |key| document.as_ref().and_then(|document| document.get(key)?.as_str()).unwrap_or_default();
    let code = document.as_ref().and_then(|document| document.get("code")?.as_u64());
    match code {
        Some(code) => {
            let said = [text("msg"), text("details")];
            let said = said.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
            Error::Refused { verb, plugin, code, said }
        }
        None => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Error::Wordless { verb, plugin, status: output.status.to_string(), said }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::aside::write_programs;

    /// A directory of plugins that are scripts, and a list that names them.
    struct Scripts {
        dir: tempfile::TempDir,
        list: List,
    }

    impl Scripts {
        async fn new(scripts: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in scripts {
                let (path, script) = (dir.path().join(name), format!("#!/bin/sh\n{text}\n"));
                let executable = fs::Permissions::from_mode(0o755);
                let write =
                    move || fs::write(&path, script).and_then(|()| fs::set_permissions(&path, executable));
                write_programs(write).await.unwrap();
            }
            let entry = |(name, _): &(&str, &str)| Map::from_iter([("type".to_owned(), Value::from(*name))]);
            let plugins = scripts.iter().map(entry).collect();
            Self { dir, list: List { name: "pods".into(), version: "1.0.0".into(), plugins } }
        }

        fn runtime(&self) -> Runtime {
            Runtime { bin_dir: self.dir.path().into(), deadline: Duration::from_secs(20) }
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.dir.path().join(name)).unwrap()
        }
    }

    fn pod() -> Attachment {
        Attachment { container: "c1".into(), ifname: "eth0".into(), netns: Some("/run/netns/c1".into()) }
    }

    const ECHO: &str = r#"cat > "$0.$CNI_COMMAND"; echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS" >> "$CNI_PATH/calls"; echo '{"cniVersion": "1.0.0", "from": "'${0##*/}'"}'"#;

    #[tokio::test(flavor = "current_thread")]
    async fn a_list_is_gone_through_forwards_by_add_and_backwards_by_del() {
        let scripts = Scripts::new(&[("weft-a", ECHO), ("b", ECHO)]).await;
        let (runtime, list) = (scripts.runtime(), &scripts.list);
        let result = runtime.add(list, &pod()).await.unwrap();
        assert_eq!(result["from"], "b");
        let given: Value = serde_json::from_str(&scripts.read("b.ADD")).unwrap();
        assert_eq!((&given["name"], &given["prevResult"]["from"]), (&"pods".into(), &"weft-a".into()));
        runtime.check(list, &pod(), &result).await.unwrap();
        runtime.del(list, &pod(), Some(&result)).await.unwrap();
        runtime.status(list).await.unwrap();
        let at = "c1 eth0 /run/netns/c1";
        let calls =
            ["ADD", "ADD", "CHECK", "CHECK", "DEL", "DEL"].map(|verb| format!("{verb} {at}\n")).concat();
        assert_eq!(scripts.read("calls"), calls + "STATUS   \n");
        assert!(scripts.read("weft-a.STATUS").contains(r#""cniVersion":"1.1.0""#));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_refusal_is_told_in_the_plugins_own_words() {
        let refuses = r#"echo '{"code": 11, "msg": "range is full", "details": "253 of 253"}'; exit 1"#;
        let scripts = Scripts::new(&[("weft-a", refuses)]).await;
        let error = scripts.runtime().add(&scripts.list, &pod()).await.unwrap_err();
        assert_eq!(error.to_string(), "ADD by weft-a was refused with code 11: range is full: 253 of 253");
        let scripts = Scripts::new(&[("weft-a", "echo killed by somebody >&2; exit 9")]).await;
        let error = scripts.runtime().add(&scripts.list, &pod()).await.unwrap_err();
        assert!(error.to_string().ends_with("without an answer: killed by somebody"), "{error}");
        let error =
            scripts.runtime().add(&Scripts::new(&[("weft-b", "")]).await.list, &pod()).await.unwrap_err();
        assert!(matches!(error, Error::Run { .. }), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_plugin_that_hangs_is_killed_and_del_goes_on_with_the_others() {
        let scripts =
            Scripts::new(&[("weft-a", ECHO), ("b", "echo $$ > $CNI_PATH/pid; exec sleep 600")]).await;
        let runtime = Runtime { deadline: Duration::from_secs(2), ..scripts.runtime() };
        let error = runtime.del(&scripts.list, &pod(), None).await.unwrap_err();
        assert_eq!(error.to_string(), "DEL by b took longer than 2000 ms and was killed");
        assert_eq!(scripts.read("calls"), "DEL c1 eth0 /run/netns/c1\n");
        let state = format!("/proc/{}/stat", scripts.read("pid").trim());
        let is_over = || fs::read_to_string(&state).map_or(true, |stat| stat.contains(") Z "));
        assert!(is_over(), "it is killed, and waited for later");
    }
}
