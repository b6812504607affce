//! `jsonTranscoding`: JSON over HTTP for services that speak gRPC.

use super::jwt::absolute;
use crate::diagnostic::Diagnostic;
use crate::read::Node;
use crate::read::decode::{Report, boolean, text};

/// How JSON becomes gRPC. The methods' `google.api.http` options say which paths mean which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonTranscoding {
    /// The services' descriptors.
    pub descriptors: Descriptors,
    /// The services, by full name. Never empty.
    pub services: Vec<String>,
    /// Whether methods without such options are reached by `POST /package.Service/Method`.
    pub auto_mapping: bool,
    /// Whether fields keep their names, rather than becoming camelCase.
    pub preserve_names: bool,
    /// Whether fields that have their default value are written.
    pub print_defaults: bool,
}

/// A `FileDescriptorSet`, as `protoc --descriptor_set_out --include_imports` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Descriptors {
    /// Envoy reads it from this file, once.
    File(String),
    /// It stands in the policy, as base64.
    Inline(Vec<u8>),
}

/// Reads `jsonTranscoding`.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<JsonTranscoding> {
    let mut fields = report.fields(node, "jsonTranscoding")?;
    let descriptors = fields.required("descriptors", descriptors);
    let services = fields.list("services", text);
    let auto_mapping = fields.optional("autoMapping", boolean).unwrap_or(false);
    let preserve_names = fields.optional("preserveNames", boolean).unwrap_or(false);
    let print_defaults = fields.optional("printDefaults", boolean).unwrap_or(false);
    let span = fields.key_span("services");
    if node.get("services").is_none_or(Node::is_empty) {
        fields.error::<()>("jsonTranscoding has no \"services\"");
    }
    fields.finish();
    let descriptors = descriptors?;
    if let Descriptors::Inline(bytes) = &descriptors {
        check_services(bytes, &services, span, report);
    }
    Some(JsonTranscoding { descriptors, services, auto_mapping, preserve_names, print_defaults })
}

fn descriptors(node: &Node, report: &mut Report) -> Option<Descriptors> {
    let mut fields = report.fields(node, "descriptors")?;
    let file = fields.optional("file", absolute).map(Descriptors::File);
    let inline = fields.optional("inline", base64).map(Descriptors::Inline);
    if node.get("file").is_some() == node.get("inline").is_some() {
        fields.error::<()>("descriptors has either \"file\" or \"inline\"");
    }
    fields.finish();
    file.or(inline)
}

fn base64(node: &Node, report: &mut Report) -> Option<Vec<u8>> {
    let given = text(node, report)?;
    decode_base64(&given).or_else(|| report.error(node.span, "this is not base64"))
}

/// RFC 4648, section 4; white space between is as YAML folds it.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count, mut symbols) = (0_u32, 0, 0_usize);
    let body: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let padding = body.iter().rev().take_while(|byte| **byte == b'=').count();
    for byte in body.iter().take(body.len() - padding) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0x00ff_ffff;
        (count, symbols) = (count + 6, symbols + 1);
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    (padding <= 2 && (symbols + padding).is_multiple_of(4)).then_some(bytes)
}

fn check_services(bytes: &[u8], services: &[String], span: crate::diagnostic::Span, report: &mut Report) {
    let Ok(pool) = prost_reflect::DescriptorPool::decode(bytes) else {
        let mistake = Diagnostic::error("the descriptors are no complete FileDescriptorSet")
            .help("protoc --descriptor_set_out=FILE --include_imports makes one");
        report.add::<()>(span, mistake);
        return;
    };
    let known: Vec<String> = pool.services().map(|service| service.full_name().to_owned()).collect();
    for service in services.iter().filter(|service| !known.contains(service)) {
        let mistake = Diagnostic::error(format!("the descriptors have no service {service:?}"))
            .nearest(service, known.iter().map(String::as_str));
        report.add::<()>(span, mistake);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn base64_is_read_as_rfc_4648_has_it() {
        let table: [(&str, &[u8]); 6] = [
            ("", b""),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9v\nYg==", b"foob"),
            ("+/+/", &[251, 255, 191]),
        ];
        for (text, bytes) in table {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["Z", "Zg=", "Zg", "Z===", "Zm9v=", "Zm_v"] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
    }

    #[test]
    fn a_service_that_the_descriptors_lack_is_named() {
        let set = "ChMKB2EucHJvdG8SAWEyBQoDU2F5";
        let spec = |service: &str| format!("{{descriptors: {{inline: {set}}}, services: [{service}]}}");
        let transcoding = good(&spec("a.Say"), decode);
        assert_eq!(transcoding.services, ["a.Say"]);
        assert_eq!(
            mistakes(&spec("a.Sya"), decode),
            ["1:58 the descriptors have no service \"a.Sya\" (did you mean \"a.Say\"?)"]
        );
        assert_eq!(
            mistakes("{descriptors: {file: /x}}", decode),
            ["1:4 jsonTranscoding has no \"services\""]
        );
    }
}
