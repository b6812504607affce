//! Changes to headers.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};

use crate::model::filter::HeaderChanges;
use crate::translate::tags::literal;

/// What is set and added; Envoy removes first.
pub(super) fn added(changes: &HeaderChanges) -> Vec<HeaderValueOption> {
    let set = changes.set.iter().map(|header| option(header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = changes.add.iter().map(|header| option(header, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).collect()
}

fn option((key, value): &(String, String), append_action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.clone(), value: literal(value), ..HeaderValue::default() }),
        append_action: append_action.into(),
        ..HeaderValueOption::default()
    }
}
