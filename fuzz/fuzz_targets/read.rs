//! Any text as a file: it is read, or refused with mistakes that can be shown.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use weft_sidecar::diagnostic::Source;
use weft_sidecar::model::{Document, object};
use weft_sidecar::read::decode::Report;
use weft_sidecar::read::yaml;

fuzz_target!(|text: &str| {
    let source = Arc::new(Source { name: "f.yaml".into(), text: text.into() });
    match yaml::documents(&source) {
        Err(mistakes) => mistakes.iter().for_each(|mistake| drop(format!("{mistake:#}"))),
        Ok(nodes) => {
            let mut report = Report::new(&source);
            for node in nodes.iter().flat_map(|node| object::items(node, &mut report)).collect::<Vec<_>>() {
                drop(Document::decode(node, &mut report));
            }
            report.into_diagnostics().iter().for_each(|mistake| drop(format!("{mistake:#}")));
        }
    }
});
