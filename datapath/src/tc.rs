//! Shaping: a token bucket (`tbf`) as root qdisc, which delays what leaves by an interface.
//!
//! Numbers are those of `linux/pkt_sched.h` and `linux/rtnetlink.h`.

use nix::errno::Errno;

use crate::Link;
use crate::netlink::{Attributes, Purpose, Reply, Request, attribute_of, flag};

/// Message types.
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
/// Length of `struct tcmsg`.
const TCMSG: usize = 20;
/// `TC_H_ROOT`.
const ROOT: u32 = u32::MAX;
/// The handle `1:`, which people expect to see in `tc qdisc`.
const HANDLE: u32 = 1 << 16;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TBF: &str = "tbf";

/// How what leaves by an interface is slowed down.
///
/// What is to leave beyond the rate waits; what would have to wait for longer than about 50 ms is dropped, which is how
/// TCP learns of the rate. A large packet that TCP hands down in one piece (GSO) is cut where it is longer than the
/// burst, which costs processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shaping {
    /// Bytes a second, at least 1.
    pub rate: u64,
    /// What may leave at once after a pause, in bytes. It is raised to one packet of the interface's MTU: the kernel drops
    /// every packet that is longer.
    pub burst: u32,
}

/// A token bucket as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shaped {
    /// Bytes a second.
    pub rate: u64,
    /// What may wait, in bytes. The kernel tells the burst only as a rounded time, but this number exactly.
    pub queue: u32,
}

impl Shaping {
    /// How many parts of a second a packet may wait.
    const PATIENCE: u64 = 20;

    /// What the kernel shows of it on an interface with this MTU: where bursts differ, queues do.
    #[must_use]
    pub fn shaped(self, mtu: u32) -> Shaped {
        let waiting = self.rate / Self::PATIENCE;
        let queue = waiting.saturating_add(u64::from(self.burst_on(mtu)));
        Shaped { rate: self.rate, queue: u32::try_from(queue).unwrap_or(u32::MAX) }
    }

    /// The packet comes with its Ethernet header, and may have a tag.
    fn burst_on(self, mtu: u32) -> u32 {
        const HEADER: u32 = 14 + 4;
        self.burst.max(mtu.saturating_add(HEADER))
    }
}

/// Makes the token bucket the root qdisc of the interface, in the place of whatever is there.
pub(crate) fn shape(link: &Link, shaping: Shaping) -> Request {
    let options = Attributes::default()
        .bytes(TCA_TBF_PARMS, &parameters(shaping.shaped(link.mtu)))
        .bytes(TCA_TBF_RATE64, &shaping.rate.to_ne_bytes())
        .native(TCA_TBF_BURST, shaping.burst_on(link.mtu));
    let message =
        Attributes::behind(&tcmsg(link.index, HANDLE, ROOT)).text(TCA_KIND, TBF).nested(TCA_OPTIONS, options);
    Request {
        doing: Purpose::of("shape what leaves by", &link.name),
        kind: RTM_NEWQDISC,
        flags: flag::CREATE | flag::REPLACE,
        body: message.into_bytes(),
        forgiven: &[],
    }
}

/// Takes away the root qdisc of the interface.
pub(crate) fn unshape(link: &Link) -> Request {
    let (doing, body) = (Purpose::of("end the shaping of", &link.name), tcmsg(link.index, 0, ROOT));
    Request { doing, kind: RTM_DELQDISC, flags: 0, body, forgiven: &[Errno::ENOENT, Errno::EINVAL] }
}

/// Asks for the qdiscs of all interfaces. A kernel without any answers that it has no such request.
pub(crate) fn list() -> Request {
    let (doing, body) = (Purpose::default(), tcmsg(0, 0, 0));
    Request { doing, kind: RTM_GETQDISC, flags: 0, body, forgiven: &[Errno::EOPNOTSUPP] }
}

/// The interface and its token bucket, if `reply` describes a root qdisc that is one.
pub(crate) fn read(reply: &Reply) -> Option<(u32, Shaped)> {
    if reply.kind != RTM_NEWQDISC {
        return None;
    }
    let header = reply.body.first_chunk::<TCMSG>()?;
    let [_, _, _, _, i0, i1, i2, i3, _, _, _, _, p0, p1, p2, p3, ..] = *header;
    let attributes = reply.body.get(TCMSG..)?;
    if attribute_of(attributes, TCA_KIND)?.strip_suffix(b"\0") != Some(TBF.as_bytes())
        || u32::from_ne_bytes([p0, p1, p2, p3]) != ROOT
    {
        return None;
    }
    let options = attribute_of(attributes, TCA_OPTIONS)?;
    let parameters: &[u8; PARAMETERS] = attribute_of(options, TCA_TBF_PARMS)?.try_into().ok()?;
    let number = |at: usize| parameters.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    // Only a rate that does not fit into the older field comes in this one.
    let wide =
        attribute_of(options, TCA_TBF_RATE64).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
    let rate = wide.or_else(|| number(RATE_AT).map(u64::from))?;
    Some((u32::from_ne_bytes([i0, i1, i2, i3]), Shaped { rate, queue: number(QUEUE_AT)? }))
}

/// Length of `struct tc_tbf_qopt`, and where in it are the rate and the limit.
const PARAMETERS: usize = 36;
const RATE_AT: usize = 8;
const QUEUE_AT: usize = 24;

/// `struct tc_tbf_qopt`. The link layer is said to be Ethernet, so that the kernel wants no table of rates, which it
/// would not use (`tbf_change` in `net/sched/sch_tbf.c`).
fn parameters(shaped: Shaped) -> Vec<u8> {
    const TC_LINKLAYER_ETHERNET: u8 = 1;
    let narrow = u32::try_from(shaped.rate).unwrap_or(u32::MAX);
    let mut bytes = vec![0, TC_LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
    bytes.extend(narrow.to_ne_bytes());
    bytes.resize(QUEUE_AT, 0);
    bytes.extend(shaped.queue.to_ne_bytes());
    bytes.resize(PARAMETERS, 0);
    bytes
}

fn tcmsg(index: u32, handle: u32, parent: u32) -> Vec<u8> {
    [0, index, handle, parent, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer if it answered with the request.
    fn echoed(shaping: Shaping) -> Reply {
        let link = Link { index: 7, name: "eth0".to_owned(), mtu: 1500, ..Link::default() };
        let Request { kind, body, .. } = shape(&link, shaping);
        Reply { kind, body }
    }

    #[test]
    fn a_request_reads_as_what_the_kernel_shows() {
        for rate in [1, 125_000, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
            let shaping = Shaping { rate, burst: 70_000 };
            assert_eq!(read(&echoed(shaping)), Some((7, shaping.shaped(1500))));
        }
    }

    #[test]
    fn what_is_cut_short_or_of_another_kind_is_no_token_bucket() {
        let whole = echoed(Shaping { rate: 1, burst: 1 });
        for length in 0..whole.body.len() - 12 {
            let cut = Reply { kind: whole.kind, body: whole.body[..length].to_vec() };
            assert_eq!(read(&cut).map(|(index, _)| index), None, "{length}");
        }
        assert_eq!(read(&Reply { kind: 16, body: whole.body }), None);
    }

    #[test]
    fn another_burst_is_seen_in_the_queue() {
        let shaping = Shaping { rate: 125_000_000, burst: 2_500_000 };
        assert_eq!(shaping.shaped(1500), Shaped { rate: 125_000_000, queue: 8_750_000 });
        assert_ne!(Shaping { burst: 2_500_001, ..shaping }.shaped(1500), shaping.shaped(1500));
        assert_eq!(Shaping { rate: 20, burst: 1 }.shaped(1500), Shaped { rate: 20, queue: 1519 });
    }
}
