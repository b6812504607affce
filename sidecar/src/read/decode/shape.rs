//! What a decoder takes, found by running it: a schema that cannot drift, because it is the decoder.
//!
//! A describing report answers every question a decoder asks: each field is there, as an empty mapping, and what is read of it
//! is noted down instead of judged. Where a decoder takes one of a few words, and may go on differently for each, it is
//! given each of them in turn, run after run, until none is left.

use std::collections::BTreeMap;

use crate::diagnostic::Span;
use crate::read::{Node, Value};

/// What every field is while a decoder is described.
pub(super) static ANYTHING: Node =
    Node { span: Span { line: 1, column: 1, width: 0 }, value: Value::Map(Vec::new()) };

/// More runs than this are not made; no decoder comes near.
const MAX_RUNS: usize = 500;

/// The values that a decoder takes. Where it looks at a value in a way of its own, this is [`Shape::Any`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Shape {
    /// Any value.
    #[default]
    Any,
    /// A text.
    Text,
    /// A text that this expression matches.
    Like(&'static str),
    /// True or false.
    Boolean,
    /// A whole number from the first to the second.
    Integer(i64, i64),
    /// One of these texts.
    Words(Vec<String>),
    /// A mapping of any keys to texts.
    Texts,
    /// Nothing, or something that says nothing.
    Empty,
    /// A list of such values.
    List(Box<Shape>),
    /// A mapping with these fields and no others.
    Object {
        /// What it is called in messages.
        what: &'static str,
        /// Its fields; true for those that must be there.
        fields: BTreeMap<&'static str, (bool, Shape)>,
    },
}

/// What was noted down so far, and where the decoder is.
#[derive(Debug, Default)]
pub(super) struct Notes {
    open: Vec<Shape>,
    path: Vec<&'static str>,
    /// By place: how many words there are, and how many of them were given already.
    choices: BTreeMap<Vec<&'static str>, (usize, usize)>,
}

/// Runs `decode` until it has been given every word that it takes, and puts together what it took.
pub(super) fn shape(mut decode: impl FnMut(Notes) -> Notes) -> Shape {
    let (mut whole, mut notes) = (Shape::Any, Notes::default());
    for _ in 0..MAX_RUNS {
        notes.open = vec![Shape::Any];
        notes = decode(notes);
        whole = whole.and(notes.open.pop().unwrap_or_default());
        if notes.choices.values().all(|(words, given)| given >= words) {
            break;
        }
    }
    whole
}

impl Notes {
    /// Something of this shape was read here.
    pub(super) fn saw(&mut self, shape: Shape) {
        if let Some(here) = self.open.last_mut() {
            *here = std::mem::take(here).and(shape);
        }
    }

    /// The decoder turns to a field, or with "" to the items of a list.
    pub(super) fn enter(&mut self, name: &'static str) {
        self.path.push(name);
        self.open.push(Shape::Any);
    }

    /// The decoder is done with it.
    pub(super) fn leave_field(&mut self, is_required: bool) {
        let (name, shape) = (self.path.pop().unwrap_or_default(), self.open.pop().unwrap_or_default());
        if let Some(Shape::Object { fields, .. }) = self.open.last_mut() {
            let known = fields.remove(name);
            let both = known.map_or((is_required, shape.clone()), |(before, known)| {
                (before || is_required, known.and(shape))
            });
            fields.insert(name, both);
        }
    }

    /// The decoder is done with a list.
    pub(super) fn leave_list(&mut self) {
        self.path.pop();
        let item = self.open.pop().unwrap_or_default();
        self.saw(Shape::List(Box::new(item)));
    }

    /// Which of so many words the decoder is given here in this run.
    pub(super) fn choose(&mut self, words: usize) -> usize {
        let (known, given) = self.choices.entry(self.path.clone()).or_insert((words, 0));
        *known = words.max(*known);
        let choice = *given % words.max(1);
        *given += 1;
        choice
    }
}

impl Shape {
    /// What both take, one after the other: two looks at the same value, or two runs.
    #[must_use]
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, shape) | (shape, Self::Any) => shape,
            (Self::Object { what, fields }, Self::Object { fields: more, .. }) => {
                Self::Object { what, fields: together(fields, more) }
            }
            (Self::List(item), Self::List(other)) => Self::List(Box::new(item.and(*other))),
            (Self::Words(mut words), Self::Words(more)) => {
                let new: Vec<String> = more.into_iter().filter(|word| !words.contains(word)).collect();
                words.extend(new);
                Self::Words(words)
            }
            // A text that is looked at once more is narrower for it.
            (Self::Text, narrower @ (Self::Like(_) | Self::Words(_))) => narrower,
            (first, _) => first,
        }
    }
}

/// A field must be there only if no run did without it.
fn together(
    mut fields: BTreeMap<&'static str, (bool, Shape)>,
    more: BTreeMap<&'static str, (bool, Shape)>,
) -> BTreeMap<&'static str, (bool, Shape)> {
    if fields.is_empty() || more.is_empty() {
        fields.extend(more);
        return fields;
    }
    for (name, known) in &mut fields {
        known.0 &= more.contains_key(name);
    }
    for (name, (is_required, shape)) in more {
        let merged = match fields.remove(name) {
            Some((before, known)) => (before && is_required, known.and(shape)),
            None => (false, shape),
        };
        fields.insert(name, merged);
    }
    fields
}
