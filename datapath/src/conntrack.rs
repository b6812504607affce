//! What the kernel remembers of UDP flows to host ports (ctnetlink).
//!
//! A connection keeps the destination that its first packet was given. TCP begins anew with a new pod, but a UDP client
//! that goes on sending from its port would reach the old pod's address, or the node itself, for as long as it does not
//! pause. So where a port begins or ceases to lead somewhere, the flows that know otherwise are forgotten.
//!
//! Looking for them walks through the kernel's table, so it is done for UDP only.

use std::net::SocketAddr;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use crate::netlink::{Reply, Request, Socket, attribute_of};
use crate::nft::wire::{Attributes, NFGENMSG, message_of};
use crate::rtnl::wire::{family_of, ip};
use crate::{Error, HostPort, Protocol, Published, Rtnl};

/// Forgets the flows to those of `ports` that are UDP and do not lead to where the port leads: an earlier pod's, and
/// those of clients that asked before there was a pod. Call it after the ports have been published.
///
/// # Errors
/// Where the kernel refuses.
pub fn forget_others(ports: &[Published]) -> Result<(), Error> {
    // What only passes through to the same port of another machine is left alone.
    let is_here = |flow: &Flow| Rtnl::open()?.is_local(flow.to.ip());
    forget_where(ports, |flow, port| Ok(flow.answered_by != port.to && is_here(flow)?))
}

/// Forgets the flows to those of `ports` that are UDP and lead to where the port led. Call it after the ports have
/// ceased to be published.
///
/// # Errors
/// Where the kernel refuses.
pub fn forget(ports: &[Published]) -> Result<(), Error> {
    forget_where(ports, |flow, port| Ok(flow.answered_by == port.to))
}

fn forget_where(
    ports: &[Published],
    is_stale: impl Fn(&Flow, &Published) -> Result<bool, Error>,
) -> Result<(), Error> {
    let mut udp: Vec<_> = ports.iter().filter(|port| port.at.protocol == Protocol::Udp).collect();
    if udp.is_empty() {
        return Ok(());
    }
    udp.sort_by_key(|port| port.at.port);
    let socket = Socket::open(NETLINK_NETFILTER)?;
    for is_v4 in [true, false] {
        let of_family: Vec<_> = udp.iter().copied().filter(|p| p.at.address.is_ipv4() == is_v4).collect();
        for flow in flows_to(&socket, &of_family)? {
            for port in leading(&flow, &of_family) {
                if is_stale(&flow, port)? {
                    socket.carry_out(&[delete(&flow)])?;
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Those of `ports`, which are of the flow's family and in the order of their numbers, that the flow is to.
fn leading<'a>(flow: &Flow, ports: &[&'a Published]) -> impl Iterator<Item = &'a Published> {
    let to = flow.to;
    let first = ports.partition_point(|port| port.at.port < to.port());
    let of_number = ports.iter().copied().skip(first).take_while(move |port| port.at.port == to.port());
    of_number.filter(move |port| port.at.address.is_unspecified() || port.at.address == to.ip())
}

/// A flow as the kernel tracks it.
#[derive(Debug)]
struct Flow {
    /// Where its first packet was sent to.
    to: SocketAddr,
    /// Who answers it: another than `to` where the destination was translated.
    answered_by: SocketAddr,
    /// What tells it from all others, as it came.
    identity: Attributes,
}

/// Flows to any of `ports`, which are of one family: one walk through the table, however many they are, and only the flows to
/// a single number are shown where there is but one. Kernels before 5.8 do not know the filter and tell of everything, so
/// the answers are looked at again.
fn flows_to(socket: &Socket, ports: &[&Published]) -> Result<Vec<Flow>, Error> {
    let Some(first) = ports.first() else { return Ok(Vec::new()) };
    let is_alone = ports.iter().all(|port| port.at.port == first.at.port);
    let mut flows: Vec<_> = socket.dump(&list(&first.at, is_alone))?.iter().filter_map(read).collect();
    flows.retain(|flow| {
        flow.to.is_ipv4() == first.at.address.is_ipv4() && leading(flow, ports).next().is_some()
    });
    Ok(flows)
}

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Asks for the flows of the port's protocol and family; where it `is_alone`, only for those to its number.
fn list(port: &HostPort, is_alone: bool) -> Request {
    const IPCTNL_MSG_CT_GET: u16 = 1;
    const CTA_FILTER: u16 = 25;
    const CTA_FILTER_ORIG_FLAGS: u16 = 1;
    const CTA_FILTER_REPLY_FLAGS: u16 = 2;
    // `CTA_FILTER_F_CTA_PROTO_NUM` and `CTA_FILTER_F_CTA_PROTO_DST_PORT` of `net/netfilter/nf_internals.h`.
    const PROTOCOL: u32 = 1 << 3;
    const DESTINATION_PORT: u32 = 1 << 5;
    let compared = if is_alone { PROTOCOL | DESTINATION_PORT } else { PROTOCOL };
    let protocol = Attributes::default()
        .bytes(CTA_PROTO_NUM, &[port.protocol.number()])
        .bytes(CTA_PROTO_DST_PORT, &port.port.to_be_bytes());
    let filter = Attributes::default()
        .bytes(CTA_FILTER_ORIG_FLAGS, &compared.to_ne_bytes())
        .bytes(CTA_FILTER_REPLY_FLAGS, &0u32.to_ne_bytes());
    let attributes = Attributes::default()
        .nested(CTA_TUPLE_ORIG, Attributes::default().nested(CTA_TUPLE_PROTO, protocol))
        .nested(CTA_FILTER, filter);
    let what = if is_alone { format!("host port {port}") } else { "host ports".to_owned() };
    let doing = format!("list the flows to {what}");
    message_of(NFNL_SUBSYS_CTNETLINK, doing, IPCTNL_MSG_CT_GET, family_of(port.address), attributes)
}

fn delete(flow: &Flow) -> Request {
    const IPCTNL_MSG_CT_DELETE: u16 = 2;
    let family = family_of(flow.to.ip());
    let doing = format!("forget a flow to {}", flow.to);
    let request =
        message_of(NFNL_SUBSYS_CTNETLINK, doing, IPCTNL_MSG_CT_DELETE, family, flow.identity.clone());
    Request { forgiven: &[Errno::ENOENT], ..request }
}

/// The UDP flow in a message of the kernel.
fn read(reply: &Reply) -> Option<Flow> {
    let body = reply.body.get(NFGENMSG..)?;
    let original = attribute_of(body, CTA_TUPLE_ORIG)?;
    let answer = attribute_of(body, CTA_TUPLE_REPLY)?;
    let identity = [CTA_ZONE, CTA_ID].into_iter().fold(
        Attributes::default().nested_bytes(CTA_TUPLE_ORIG, original),
        |identity, kind| match attribute_of(body, kind) {
            Some(value) => identity.bytes(kind, value),
            None => identity,
        },
    );
    Some(Flow {
        to: end(original, &[CTA_IP_V4_DST, CTA_IP_V6_DST], CTA_PROTO_DST_PORT)?,
        answered_by: end(answer, &[CTA_IP_V4_SRC, CTA_IP_V6_SRC], CTA_PROTO_SRC_PORT)?,
        identity,
    })
}

const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;

/// One end of a tuple, if the tuple is of UDP.
fn end(tuple: &[u8], address: &[u16], port: u16) -> Option<SocketAddr> {
    let protocol = attribute_of(tuple, CTA_TUPLE_PROTO)?;
    if attribute_of(protocol, CTA_PROTO_NUM)? != [Protocol::Udp.number()] {
        return None;
    }
    let addresses = attribute_of(tuple, CTA_TUPLE_IP)?;
    let ip = address.iter().find_map(|kind| ip(attribute_of(addresses, *kind)?))?;
    let port = attribute_of(protocol, port)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))?;
    Some(SocketAddr::new(ip, port))
}
