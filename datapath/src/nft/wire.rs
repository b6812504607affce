//! Bytes of nfnetlink: message headers, batches. Numbers are those of `linux/netfilter/nfnetlink.h` and
//! `linux/netfilter/nf_tables.h`.

pub(crate) use crate::netlink::Attributes;
use crate::netlink::{Purpose, Request};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
pub(super) const NFPROTO_INET: u8 = 1;
pub(super) const NFPROTO_BRIDGE: u8 = 7;
/// Length of `struct nfgenmsg`.
pub(crate) const NFGENMSG: usize = 4;

pub(super) const NEWTABLE: u16 = 0;
pub(super) const GETTABLE: u16 = 1;
pub(super) const DELTABLE: u16 = 2;
pub(super) const NEWCHAIN: u16 = 3;
pub(super) const GETCHAIN: u16 = 4;
pub(super) const NEWRULE: u16 = 6;
pub(super) const GETRULE: u16 = 7;
pub(super) const DELRULE: u16 = 8;
pub(super) const NEWSET: u16 = 9;
pub(super) const NEWSETELEM: u16 = 12;
pub(super) const GETSETELEM: u16 = 13;
pub(super) const DELSETELEM: u16 = 14;
pub(super) const GETGEN: u16 = 16;

/// A message of another subsystem of nfnetlink.
pub(crate) fn message_of(
    subsystem: u16,
    doing: impl Into<Purpose>,
    kind: u16,
    family: u8,
    attributes: Attributes,
) -> Request {
    let kind = (subsystem << 8) | kind;
    Request { doing: doing.into(), kind, flags: 0, body: body(family, 0, attributes), forgiven: &[] }
}

/// A message of nf_tables for the family `inet`.
pub(super) fn message(doing: impl Into<Purpose>, kind: u16, flags: u16, attributes: Attributes) -> Request {
    message_in(NFPROTO_INET, doing, kind, flags, attributes)
}

/// A message of nf_tables for `family`.
pub(super) fn message_in(
    family: u8,
    doing: impl Into<Purpose>,
    kind: u16,
    flags: u16,
    attributes: Attributes,
) -> Request {
    let kind = (NFNL_SUBSYS_NFTABLES << 8) | kind;
    Request { doing: doing.into(), kind, flags, body: body(family, 0, attributes), forgiven: &[] }
}

/// Opens a batch. With a `generation` the kernel refuses the batch with `ERESTART` where the ruleset has another.
pub(super) fn batch_begin(generation: Option<u32>) -> Request {
    const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
    const NFNL_BATCH_GENID: u16 = 1;
    let attributes = Attributes::default();
    let attributes = match generation {
        Some(id) => attributes.number(NFNL_BATCH_GENID, id),
        None => attributes,
    };
    batch_message(NFNL_MSG_BATCH_BEGIN, attributes)
}

/// Closes a batch: what came since its opening is committed.
pub(super) fn batch_end() -> Request {
    const NFNL_MSG_BATCH_END: u16 = 0x11;
    batch_message(NFNL_MSG_BATCH_END, Attributes::default())
}

fn batch_message(kind: u16, attributes: Attributes) -> Request {
    let body = body(0, NFNL_SUBSYS_NFTABLES, attributes);
    Request { doing: "change the nftables ruleset".into(), kind, flags: 0, body, forgiven: &[] }
}

/// `struct nfgenmsg` and what follows it.
fn body(family: u8, resource: u16, attributes: Attributes) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    let mut body = Vec::with_capacity(NFGENMSG + attributes.as_bytes().len());
    body.extend_from_slice(&[family, 0, high, low]);
    body.extend_from_slice(attributes.as_bytes());
    body
}
