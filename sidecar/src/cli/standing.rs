//! `weft-sidecar status`: how Gateways, routes and policies stand.

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::model::status::{Condition, ObjectStatus};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    Human,
    /// One object with the `status` of each, as the Gateway API has it
    Json,
}

impl Output {
    /// The objects as text.
    pub(super) fn print(self, objects: &[ObjectStatus]) -> String {
        match self {
            Self::Human if objects.is_empty() => "there are no Gateways, routes or policies".to_owned(),
            Self::Human => {
                let all: Vec<String> = objects.iter().map(ObjectStatus::human).collect();
                all.join("\n").trim_end().to_owned()
            }
            Self::Json => {
                let items: Vec<Value> = objects.iter().map(ObjectStatus::json).collect();
                format!("{:#}", json!({ "items": items }))
            }
        }
    }
}

/// Whether all of it is as it should be.
pub(super) fn is_good(objects: &[ObjectStatus]) -> bool {
    objects.iter().flat_map(ObjectStatus::all_conditions).all(Condition::is_good)
}
