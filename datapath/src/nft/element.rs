//! Elements of sets and maps, as they are written and read, and the comment by which an element says whose it is.

use super::expr::value;
use super::layout::TABLE;
use super::wire::{self, Attributes};
use crate::netlink::{Reply, attribute_of, attributes_of};

/// Attributes of an element.
pub(super) const KEY: u16 = 1;
pub(super) const DATA: u16 = 2;
pub(super) const USERDATA: u16 = 6;

/// Attributes of a list of elements.
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;

/// What names a set or a map, and with that all of its elements.
pub(super) fn all_of(set: &str) -> Attributes {
    Attributes::default().text(LIST_TABLE, TABLE).text(LIST_SET, set)
}

/// One element of a set or a map.
pub(super) fn one_of(set: &str, element: Attributes) -> Attributes {
    const NFTA_LIST_ELEM: u16 = 1;
    all_of(set).nested(LIST_ELEMENTS, Attributes::default().nested(NFTA_LIST_ELEM, element))
}

/// An element of which no more than its key is said.
pub(super) fn with_key(key: &[u8]) -> Attributes {
    Attributes::default().nested(KEY, value(key))
}

/// The elements in an answer of the kernel.
pub(super) fn elements_of(reply: &Reply) -> impl Iterator<Item = &[u8]> {
    let body = reply.body.get(wire::NFGENMSG..).unwrap_or_default();
    let lists = attributes_of(body).filter(|(kind, _)| *kind == LIST_ELEMENTS);
    lists.flat_map(|(_, list)| attributes_of(list).map(|(_, element)| element))
}

/// The bytes of the [`KEY`] or the [`DATA`] of an element: the one attribute that is in it.
pub(super) fn bytes_of(element: &[u8], kind: u16) -> Option<&[u8]> {
    attributes_of(attribute_of(element, kind)?).next().map(|(_, bytes)| bytes)
}

/// Whose an element is, as far as it was kept; empty where nobody said so.
pub(super) fn owner_of(element: &[u8]) -> String {
    attribute_of(element, USERDATA).and_then(read_comment).unwrap_or_default()
}

/// A comment as `nft` keeps it in an element's user data: type 0, length, text with its final zero (`udata.h` of
/// libnftnl). `nft` accepts 128 bytes of text.
pub(super) fn comment(owner: &str) -> Vec<u8> {
    let text = kept(owner);
    let mut data = vec![NFTNL_UDATA_SET_ELEM_COMMENT, (text.len() + 1) as u8];
    data.extend_from_slice(text.as_bytes());
    data.push(0);
    data
}

/// The text of a comment that [`comment`] or `nft` has made.
fn read_comment(data: &[u8]) -> Option<String> {
    let (header, text) = data.split_first_chunk::<2>()?;
    let [kind, length] = *header;
    let text = text.get(..usize::from(length))?;
    let is_comment = kind == NFTNL_UDATA_SET_ELEM_COMMENT;
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    is_comment.then(|| String::from_utf8_lossy(text).into_owned())
}

const NFTNL_UDATA_SET_ELEM_COMMENT: u8 = 0;

/// What a comment keeps of an owner.
pub(super) fn kept(owner: &str) -> &str {
    const LONGEST: usize = 127;
    owner.get(..owner.floor_char_boundary(LONGEST)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_that_is_too_long_is_cut_at_a_character() {
        assert_eq!(comment("ab"), [0, 3, b'a', b'b', 0]);
        let long = comment(&"ä".repeat(100));
        assert_eq!(long.len(), 2 + 126 + 1);
        assert_eq!(usize::from(long[1]), 127);
        assert_eq!(read_comment(&long).as_deref(), Some(kept(&"ä".repeat(100))));
    }

    #[test]
    fn a_comment_is_read_back_and_nothing_else_is_taken_for_one() {
        assert_eq!(read_comment(&comment("weft/c1/eth0")).as_deref(), Some("weft/c1/eth0"));
        for strange in [&[][..], &[0], &[0, 3, b'a'], &[1, 1, b'a']] {
            assert_eq!(read_comment(strange), None, "{strange:?}");
        }
    }
}
