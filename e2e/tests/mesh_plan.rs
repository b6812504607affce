//! `weft-sidecar plan` against an Envoy that runs: nothing would change after what it was given, and a change is foretold.

#![cfg(test)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use weft_e2e::{Envoy, Node, Pod, binaries, output};

const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

fn weft_sidecar(pod: &Pod, arguments: &[&str], config: &Path) -> String {
    let mut command = Command::new(binaries::weft("weft-sidecar").unwrap());
    command.args(arguments).arg(config);
    pod.run(|| output(&mut command)).unwrap().unwrap()
}

#[test]
fn a_plan_against_the_running_envoy_foretells_what_it_does_not_have_yet() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/examples/mesh");
    let node = Node::start().unwrap();
    let pod = Pod::create(&node, "client").unwrap();
    let config = node.dir().join("mesh");
    let files: Vec<(String, String)> = ["sidecar.yaml", "web.yaml", "routes.yaml"]
        .map(|name| (name.to_owned(), fs::read_to_string(examples.join(name)).unwrap()))
        .into();
    let save = |change: &(dyn Fn(&str) -> String + Sync)| {
        node.run(|| {
            fs::create_dir_all(&config)?;
            files.iter().try_for_each(|(name, text)| fs::write(config.join(name), change(text)))
        })
        .unwrap()
        .unwrap();
    };
    save(&str::to_owned);
    let mut run = Command::new(binaries::weft("weft-sidecar").unwrap());
    run.args(["run", "--config"]).arg(&config);
    let mut sidecar = pod.spawn(run).unwrap();
    let bootstrap = weft_sidecar(&pod, &["bootstrap", "--config"], &config);
    let _envoy = Envoy::start(&pod, &bootstrap, ADMIN).unwrap();
    let in_force = |line: &str| line.contains("in force").then_some(());
    sidecar.await_line("the revision to be in force", Duration::from_secs(20), in_force).unwrap();
    assert_eq!(weft_sidecar(&pod, &["plan"], &config), "nothing would change\n");
    // From here on nobody tells Envoy.
    drop(sidecar);
    save(&|text| text.replace("weight: 90", "weight: 80").replace("10.244.0.11", "10.244.0.21"));
    let plan: Value =
        serde_json::from_str(&weft_sidecar(&pod, &["plan", "--output", "json"], &config)).unwrap();
    let changes: Vec<(&str, &str)> = plan["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| (change["type"].as_str().unwrap(), change["name"].as_str().unwrap()))
        .collect();
    assert_eq!(
        changes,
        [("endpoints", "shop/web-v1/80"), ("endpoints", "shop/web/80"), ("routes", "outbound")],
        "{plan:#}"
    );
    assert_eq!(plan["changes"][2]["differences"].as_array().unwrap().len(), 1, "{plan:#}");
    assert_eq!(plan["drains"], false);
}
