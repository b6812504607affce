//! A list without its items: these are cut out as the bytes come in, so that a page of thousands costs the memory of one.

use super::position::ListMeta;

/// An object larger than this is none: etcd takes 1.5 MiB.
pub(super) const MAX_OBJECT: usize = 8 << 20;

/// Reads the body of a list: `{…, "metadata": {…}, "items": [{…}, {…}]}`.
///
/// What is between the items' braces is not looked into, except for texts, which may hold braces.
#[derive(Debug, Default)]
pub(super) struct Items {
    /// The body so far, without the items.
    frame: Vec<u8>,
    /// The item that is being read.
    item: Vec<u8>,
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The last text in the outermost braces, and whether it is being read: the key, when a `[` follows.
    key: Vec<u8>,
    in_items: bool,
}

/// Why a body is no list.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoList {
    #[error("the answer is larger than any object of the API")]
    TooLarge,
    #[error("the answer is not a whole list of the API")]
    Garbled(#[source] serde_json::Error),
}

#[derive(serde::Deserialize)]
struct Frame {
    metadata: ListMeta,
}

impl Items {
    /// Takes the next bytes, and calls `found` with each item that ends in them.
    pub(super) fn read(&mut self, bytes: &[u8], mut found: impl FnMut(&[u8])) -> Result<(), NoList> {
        for &byte in bytes {
            self.take(byte, &mut found);
            if self.item.len().max(self.frame.len()) > MAX_OBJECT {
                return Err(NoList::TooLarge);
            }
        }
        Ok(())
    }

    /// The list's own metadata, if the body has ended where a list does.
    pub(super) fn finish(self) -> Result<ListMeta, NoList> {
        serde_json::from_slice(&self.frame).map(|frame: Frame| frame.metadata).map_err(NoList::Garbled)
    }

    fn take(&mut self, byte: u8, found: &mut impl FnMut(&[u8])) {
        if self.in_text {
            self.keep(byte);
            return self.within_text(byte);
        }
        match byte {
            b'"' => {
                self.in_text = true;
                if self.depth == 1 {
                    self.key.clear();
                }
                self.keep(byte);
            }
            b'{' | b'[' => {
                self.in_items |= self.depth == 1 && byte == b'[' && self.key == b"items";
                self.depth += 1;
                self.keep(byte);
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.in_items &= self.depth > 1;
                self.keep(byte);
                if self.in_items && self.depth == 2 {
                    found(&self.item);
                    self.item.clear();
                }
            }
            // What stands between two items is left out of both.
            _ if self.in_items && self.depth == 2 => {}
            _ => self.keep(byte),
        }
    }

    fn within_text(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.in_text = false;
                return;
            }
            _ => {}
        }
        if self.depth == 1 {
            self.key.push(byte);
        }
    }

    /// Into the item, from its opening brace to its closing one; else into the frame.
    fn keep(&mut self, byte: u8) {
        let opens_the_list = self.depth == 2 && byte == b'[' && self.item.is_empty();
        if self.in_items && !opens_the_list { self.item.push(byte) } else { self.frame.push(byte) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(body: &[u8], step: usize) -> Result<(Vec<Value>, ListMeta), NoList> {
        let (mut items, mut found) = (Items::default(), Vec::new());
        for chunk in body.chunks(step) {
            items
                .read(chunk, |item| found.push(serde_json::from_slice(item).expect("an item is a value")))?;
        }
        items.finish().map(|meta| (found, meta))
    }

    #[test]
    fn items_are_cut_out_wherever_the_chunks_end() {
        let objects = vec![json!({"a": "}]\"{[", "b": [{"c": []}]}), json!({}), json!({"items": [{"x": 1}]})];
        let body =
            json!({"kind": "NodeList", "metadata": {"resourceVersion": "9"}, "items": objects, "z": [1]});
        for text in [body.to_string(), format!("{body:#}")] {
            for step in 1..text.len() {
                let (found, meta) = read(text.as_bytes(), step).expect("a list");
                assert_eq!(found, objects, "in steps of {step}");
                assert_eq!(
                    Position::default().listed(meta),
                    Some(Position::Watching { version: "9".into() })
                );
            }
        }
    }

    use super::super::position::Position;

    #[test]
    fn an_empty_list_and_the_null_of_go_are_lists() {
        for items in [json!([]), Value::Null] {
            let body = json!({"metadata": {"resourceVersion": "1"}, "items": items}).to_string();
            assert!(read(body.as_bytes(), 3).expect("a list").0.is_empty());
        }
    }

    #[test]
    fn half_a_list_and_what_is_no_list_are_refused() {
        let whole = json!({"metadata": {"resourceVersion": "1"}, "items": [{"a": 1}, {"b": 2}]}).to_string();
        for end in 0..whole.len() {
            assert!(read(&whole.as_bytes()[..end], 7).is_err(), "{}", &whole[..end]);
        }
        for body in ["", "<html></html>", "[]", "{}", "]]]]", "{\"metadata\":{}}}"] {
            assert!(read(body.as_bytes(), 2).is_err(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_texts_in_objects_come_out_as_they_are(texts in prop::collection::vec(".*", 0..6), step in 1usize..40) {
            let objects: Vec<Value> = texts.iter().map(|text| json!({ text.as_str(): text })).collect();
            let body = json!({"items": objects, "metadata": {"continue": "t"}}).to_string();
            let (found, _) = read(body.as_bytes(), step).expect("a list");
            prop_assert_eq!(found, objects);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut items = Items::default();
            items.read(&bytes, |_| ()).ok();
            items.finish().ok();
        }
    }
}
