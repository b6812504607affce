//! What the README shows is what the plugin takes.

use std::fs;

use serde_json::{Value, json};
use weft_cni::config::Config;
use weft_cni_spec::{Args, Conf};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/cni/10-weft.conflist");

fn block(text: &str, language: &str) -> String {
    let opening = format!("```{language}\n");
    let (_, after) = text.split_once(&opening).expect("the README has such a block");
    after.split_once("```").expect("a block is closed").0.to_owned()
}

#[test]
fn the_configuration_of_the_readme_is_the_example_and_is_valid() {
    let shown: Value = serde_json::from_str(&block(&fs::read_to_string(README).unwrap(), "json")).unwrap();
    let example: Value = serde_json::from_str(&fs::read_to_string(EXAMPLE).unwrap()).unwrap();
    assert_eq!(shown, example);

    // What libcni makes of it: the plugin's own object, with the list's name and version.
    let mut document = example["plugins"][0].clone();
    document["name"] = example["name"].clone();
    document["cniVersion"] = example["cniVersion"].clone();
    document["runtimeConfig"] = json!({});
    let conf = Conf::parse(document.to_string().as_bytes()).unwrap();
    let config = Config::read(&conf, &Args::default()).unwrap();
    assert!(config.masquerade);
}
