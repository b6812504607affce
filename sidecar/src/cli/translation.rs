//! `translate`: what Envoy would be sent, each piece with the place it comes from.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::yaml;
use crate::diagnostic::Origin;
use crate::translate::json::{self, Names, Shown, TYPES};
use crate::translate::{Part, Resources};

/// Places of one piece that are named; the others are counted.
const MOST_PLACES: usize = 3;

#[derive(Debug, Args)]
pub(super) struct Selection {
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
    /// Only resources of this type; may be given several times
    #[arg(long = "type", value_name = "TYPE", value_parser = TYPES.to_vec())]
    types: Vec<String>,
    /// Only resources of this name; may be given several times
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// With a comment before each piece that says which line of which file it comes from
    Yaml,
    /// One object with a list for each type
    Json,
}

impl Selection {
    /// The selected resources as text.
    pub(super) fn print(&self, resources: &Resources) -> Result<String, json::Error> {
        let shown = json::each(resources, Names::Proto)?;
        let selected: Vec<Shown> = shown.into_iter().filter(|resource| self.selects(resource)).collect();
        Ok(match self.output {
            Output::Json => format!("{:#}", Value::Object(self.by_type(selected))),
            Output::Yaml => self.as_yaml(selected),
        })
    }

    fn selects(&self, resource: &Shown) -> bool {
        self.wants(resource.of_type) && (self.names.is_empty() || self.names.contains(&resource.name))
    }

    fn wants(&self, of_type: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|wanted| wanted == of_type)
    }

    fn by_type(&self, resources: Vec<Shown>) -> Map<String, Value> {
        let types = TYPES.iter().filter(|of_type| self.wants(of_type));
        let mut lists: Map<String, Value> =
            types.map(|of_type| ((*of_type).to_owned(), Value::Array(Vec::new()))).collect();
        for resource in resources {
            if let Some(Value::Array(list)) = lists.get_mut(resource.of_type) {
                list.push(resource.value);
            }
        }
        lists
    }

    /// A list for each type; each resource has a remark of its own, and so has what is named inside of it.
    fn as_yaml(&self, resources: Vec<Shown>) -> String {
        let mut text = String::new();
        for of_type in TYPES.iter().filter(|of_type| self.wants(of_type)) {
            let of_this: Vec<&Shown> =
                resources.iter().filter(|resource| resource.of_type == *of_type).collect();
            text.push_str(&format!("{of_type}:{}\n", if of_this.is_empty() { " []" } else { "" }));
            for resource in of_this {
                text.push_str(&entry(resource));
            }
        }
        text.trim_end().to_owned()
    }
}

fn entry(resource: &Shown) -> String {
    let mut inside: BTreeMap<&str, &Origin> = BTreeMap::new();
    for part in &resource.parts {
        inside.extend(part.mentions.iter().map(|mention| (mention.as_str(), &part.origin)));
    }
    let remark = |fields: &Map<String, Value>| {
        let name = fields.get("name")?.as_str()?;
        inside.get(name).map(ToString::to_string)
    };
    let block = yaml::block(&Value::Array(vec![resource.value.clone()]), &remark);
    let lines = block.lines().filter(|line| !line.is_empty()).map(|line| format!("  {line}\n"));
    let whole = places(&resource.parts).map(|places| format!("  # {places}\n"));
    whole.into_iter().chain(lines).collect()
}

/// The documents that a resource was made from.
fn places(parts: &[Part]) -> Option<String> {
    let mut places: Vec<String> = parts.iter().map(|part| part.origin.to_string()).collect();
    places.dedup();
    let more = places.len().saturating_sub(MOST_PLACES);
    places.truncate(MOST_PLACES);
    match (places.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(places.join(", ")),
        (false, more) => Some(format!("{} and {more} more", places.join(", "))),
    }
}
