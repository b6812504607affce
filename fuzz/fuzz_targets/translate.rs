//! Any documents beside a `Sidecar`: what comes of them is translated, encoded, shown, explained and drawn.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use weft_sidecar::diagnostic::{Diagnostic, Source};
use weft_sidecar::encoding::Encoder;
use weft_sidecar::explain::{Request, explain};
use weft_sidecar::graph::Graph;
use weft_sidecar::model::Document;
use weft_sidecar::model::resolve::resolve;
use weft_sidecar::read::decode::Report;
use weft_sidecar::read::yaml;
use weft_sidecar::translate::json::{Names, each};
use weft_sidecar::translate::{OUTBOUND, translate};
use weft_xds::Revision;

const SIDECAR: &str = "apiVersion: weft.dev/v1alpha1\nkind: Sidecar\nmetadata: {name: a, namespace: shop}\n---\n";

fuzz_target!(|text: &str| {
    let source = Arc::new(Source { name: "f.yaml".into(), text: format!("{SIDECAR}{text}") });
    let Ok(nodes) = yaml::documents(&source) else { return };
    let decoded = nodes.iter().filter_map(|node| {
        let mut report = Report::new(&source);
        let document = Document::decode(node, &mut report);
        document.filter(|_| !report.into_diagnostics().iter().any(Diagnostic::is_error)).map(Arc::new)
    });
    let Some(mesh) = resolve(&decoded.collect::<Vec<_>>()).mesh.map(Arc::new) else { return };
    let resources = translate(&mesh);
    each(&resources, Names::Proto).expect("what is emitted can be shown");
    let request = Request::new("GET", "http://web/a?b=c", &[]).expect("a request");
    drop((explain(&resources, OUTBOUND, &request), Graph::of(&resources).map(|graph| graph.svg())));
    drop(Encoder::default().encode(&mesh, Revision(1)));
});
