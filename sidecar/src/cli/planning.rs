//! `plan`: what would change in Envoy, for people and for programs.

use std::error::Error;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::diagnostic::{Origin, shortened};
use crate::model::Mesh;
use crate::plan::{Change, Difference, How, Inventory, inventory, plan, running};
use crate::translate::json::{Names, each};
use crate::translate::translate;

#[derive(Debug, Args)]
pub(super) struct Comparison {
    /// What it is compared with: other directories or files, or `envoy`, the one that runs beside this workload
    #[arg(long, value_name = "DIR|envoy", default_value = ENVOY)]
    against: Vec<PathBuf>,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Output::Human)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Human,
    /// One JSON object
    Json,
}

const ENVOY: &str = "envoy";

impl Comparison {
    /// The other configuration, unless it is Envoy's.
    pub(super) fn other(&self) -> Option<Vec<PathBuf>> {
        (self.against != [PathBuf::from(ENVOY)]).then(|| self.against.clone())
    }

    /// What would change from `other`, or from what Envoy has, to `mesh`.
    pub(super) fn print(&self, mesh: &Mesh, other: Option<&Mesh>) -> Result<String, Box<dyn Error>> {
        let mut after = of(mesh)?;
        let mut left_out = Vec::new();
        let before = match other {
            Some(other) => of(other)?,
            None => {
                let mut before = running::inventory(mesh.proxy.sidecar.envoy_admin)?;
                running::endpoints_alone(&mut before);
                running::endpoints_alone(&mut after);
                // Envoy shows no keys, and neither do we: there is nothing to compare.
                let is_secret = |of_type: &str| of_type == "secrets";
                left_out.extend(after.keys().filter(|key| is_secret(&key.0)).map(|key| key.1.clone()));
                after.retain(|(of_type, _), _| !is_secret(of_type));
                before
            }
        };
        let changes = plan(&before, &after);
        Ok(match self.output {
            Output::Json => format!("{:#}", as_json(&changes, &left_out)),
            Output::Human if left_out.is_empty() => human(&changes),
            Output::Human => {
                format!(
                    "{}\nnot compared, since Envoy shows no keys: {}",
                    human(&changes),
                    left_out.join(", ")
                )
            }
        })
    }
}

fn of(mesh: &Mesh) -> Result<Inventory, Box<dyn Error>> {
    Ok(inventory(each(&translate(mesh), Names::Proto)?))
}

/// The shape is part of the interface (`docs/sidecar/cli.md`).
fn as_json(changes: &[Change], left_out: &[String]) -> Value {
    let change = |change: &Change| {
        let (how, differences) = match &change.how {
            How::Added => ("add", &[][..]),
            How::Changed(differences) => ("change", differences.as_slice()),
            How::Removed => ("remove", &[][..]),
        };
        let difference =
            |one: &Difference| json!({ "path": one.path, "before": one.before, "after": one.after });
        json!({
            "type": change.of_type,
            "name": change.name,
            "at": change.origin.as_ref().map(ToString::to_string),
            "change": how,
            "differences": differences.iter().map(difference).collect::<Vec<_>>(),
            "effect": change.effect.described(),
            "drains": change.effect.drains(),
        })
    };
    json!({
        "changes": changes.iter().map(change).collect::<Vec<_>>(),
        "drains": changes.iter().any(|change| change.effect.drains()),
        "notCompared": left_out,
    })
}

fn human(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "nothing would change".to_owned();
    }
    let mut text: String = changes.iter().map(entry).collect();
    let count = |wanted: fn(&How) -> bool| changes.iter().filter(|change| wanted(&change.how)).count();
    let draining: Vec<String> = changes
        .iter()
        .filter(|change| change.effect.drains())
        .map(|change| format!("{} {}", change.of_type, change.name))
        .collect();
    text.push_str(&format!(
        "{} to add, {} to change, {} to remove; ",
        count(|how| *how == How::Added),
        count(|how| matches!(how, How::Changed(_))),
        count(|how| *how == How::Removed),
    ));
    text.push_str(&if draining.is_empty() {
        "no connection would drain".to_owned()
    } else {
        shortened(format!("connections would drain of {}", draining.join(", ")))
    });
    text
}

fn entry(change: &Change) -> String {
    let sign = match change.how {
        How::Added => '+',
        How::Changed(_) => '~',
        How::Removed => '-',
    };
    let origin: Option<&Origin> = change.origin.as_ref();
    let origin = origin.map(|origin| format!("  [{origin}]")).unwrap_or_default();
    let mut text = format!("{sign} {} {}{origin}\n", change.of_type, change.name);
    if let How::Changed(differences) = &change.how {
        for one in differences {
            let shown = |value: &Option<Value>| {
                value.as_ref().map_or_else(|| "nothing".to_owned(), |value| shortened(value.to_string()))
            };
            text.push_str(&format!("    {}: {} -> {}\n", one.path, shown(&one.before), shown(&one.after)));
        }
    }
    if change.how != How::Added {
        text.push_str(&format!("    {}\n", change.effect.described()));
    }
    text
}
