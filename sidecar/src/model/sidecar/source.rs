//! `tagsFrom`: tags whose values the pod knows.

use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Span};
use crate::model::tag::{self, Tag};
use crate::read::Node;
use crate::read::decode::{Report, boolean, text};
use crate::read::surroundings::{Surroundings, Unavailable};

/// Where the downward API's volume is mounted in Kubernetes' own examples.
pub const POD_INFO: &str = "/etc/podinfo";

/// A tag whose value comes from the process's surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagSource {
    /// The tag's key.
    pub tag: String,
    /// Where its value is.
    pub place: Place,
    /// What happens where the place does not say.
    pub otherwise: Otherwise,
    /// Where the source stands in its document; none for those that are always looked for.
    pub span: Option<Span>,
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An environment variable.
    Environment(String),
    /// The whole of a file, without the line's end.
    File(PathBuf),
    /// A label in the downward API's file.
    Label(String),
    /// An annotation in the downward API's file.
    Annotation(String),
}

/// What happens where there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Otherwise {
    /// It is a mistake.
    Fail,
    /// There is no such tag.
    Omit,
    /// The tag has this value.
    Default(String),
}

/// What is looked for in every pod: the names under which the downward API is usually asked, and the label by which
/// Kubernetes tells a pod its zone (since 1.33, `PodTopologyLabelsAdmission`).
pub fn usual() -> Vec<TagSource> {
    let variable = |name: &str| Place::Environment(name.into());
    let zone = Place::Label("topology.kubernetes.io/zone".into());
    let places = [
        ("pod", variable("POD_NAME")),
        ("namespace", variable("POD_NAMESPACE")),
        ("node", variable("NODE_NAME")),
        ("zone", zone),
    ];
    let usual = places.map(|(tag, place)| TagSource {
        tag: tag.into(),
        place,
        otherwise: Otherwise::Omit,
        span: None,
    });
    usual.into()
}

/// One entry of `tagsFrom`.
pub fn tag_source(node: &Node, report: &mut Report) -> Option<TagSource> {
    let mut fields = report.fields(node, "tagsFrom entry")?;
    let tag = fields.required("tag", text);
    let places = [
        fields.optional("env", text).map(Place::Environment),
        fields.optional("file", absolute_path).map(Place::File),
        fields.optional("label", text).map(Place::Label),
        fields.optional("annotation", text).map(Place::Annotation),
    ];
    let optional = fields.optional("optional", boolean).unwrap_or(false);
    let default = fields.optional("default", text);
    let span = fields.key_span("tag");
    fields.finish();
    if optional && default.is_some() {
        report.error::<()>(span, "a tag with a default is always there: leave out \"optional\"");
    }
    let place = only(places, node.span, report);
    let (tag, place) = (tag?, place?);
    tag::check(&tag, span, report);
    if let Some(mistake) = default.as_ref().and_then(|value| tag::unfit(&tag, value)) {
        report.add::<()>(span, mistake);
    }
    let otherwise = match default {
        Some(value) => Otherwise::Default(value),
        None if optional => Otherwise::Omit,
        None => Otherwise::Fail,
    };
    Some(TagSource { tag, place, otherwise, span: Some(span) })
}

fn only(places: [Option<Place>; 4], span: Span, report: &mut Report) -> Option<Place> {
    let mut given = places.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(place), None) => Some(place),
        _ => report.error(span, "a tag comes from one of env, file, label and annotation"),
    }
}

/// A path that does not depend on where the sidecar was started.
pub fn absolute_path(node: &Node, report: &mut Report) -> Option<PathBuf> {
    let given = text(node, report)?;
    if given.starts_with('/') && !given.contains('\0') {
        return Some(PathBuf::from(given));
    }
    report.error(node.span, format!("{given:?} is not an absolute path"))
}

impl TagSource {
    /// The file that the value is in, if it is in one.
    pub fn file(&self, pod_info: &Path) -> Option<PathBuf> {
        match &self.place {
            Place::Environment(_) => None,
            Place::File(path) => Some(path.clone()),
            Place::Label(_) => Some(pod_info.join("labels")),
            Place::Annotation(_) => Some(pod_info.join("annotations")),
        }
    }

    /// The tag as its surroundings have it now, if there is one.
    pub fn read(&self, pod_info: &Path, around: &Surroundings) -> Result<Option<Tag>, Diagnostic> {
        let value = match (self.find(pod_info, around), &self.otherwise) {
            (Ok(value), _) => value,
            (Err(why), Otherwise::Fail) => return Err(self.missing(&why)),
            (Err(Unavailable::Missing(_)), Otherwise::Omit) => return Ok(None),
            (Err(Unavailable::Missing(_)), Otherwise::Default(value)) => value.clone(),
            // What is there and cannot be read is not as somebody meant it, whatever stands in for it.
            (Err(why @ Unavailable::Unreadable(_)), _) => return Err(self.missing(&why)),
        };
        match tag::unfit(&self.tag, &value) {
            None => Ok(Some(Tag { key: self.tag.clone(), value })),
            Some(mistake) => Err(mistake),
        }
    }

    fn find(&self, pod_info: &Path, around: &Surroundings) -> Result<String, Unavailable> {
        match &self.place {
            Place::Environment(name) => around.variable(name),
            Place::File(path) => around.line(path),
            Place::Label(key) => around.field(&pod_info.join("labels"), key),
            Place::Annotation(key) => around.field(&pod_info.join("annotations"), key),
        }
    }

    fn missing(&self, why: &Unavailable) -> Diagnostic {
        Diagnostic::error(format!("tag {:?} has no value: {why}", self.tag))
            .help("give it a \"default\", or say \"optional: true\"")
    }
}
