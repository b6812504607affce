//! The least that it takes to ask the kernel for a pod's network: what `make bench` measures the plugin against.
//!
//! It makes the objects that `weft-cni` makes in routed mode for a pod with IPv4 and IPv6, masquerade, one host port and
//! shaping both ways; `weft-bench` compares what stands. Like an ADD it ends when both ends carry packets. It has no configuration, no leases, no undo and no words for an
//! error; it knows every name and number beforehand, never looks whether something is there, and shares no code with the
//! plugin. The nftables table with its maps and chains has to stand already.
//!
//! ```text
//! weft-bare add NUMBER NETNS      NUMBER: 2 to 4094, the pod's place in the subnets
//! weft-bare del NUMBER
//! ```

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::sched::{CloneFlags, setns};

fn main() -> io::Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["add", number, netns] => add(&Pod::numbered(number)?, &File::open(netns)?),
        ["del", number] => del(&Pod::numbered(number)?),
        _ => Err(io::Error::other("usage: weft-bare add NUMBER NETNS | weft-bare del NUMBER")),
    }
}

/// What differs between the families.
struct Family {
    number: u8,
    /// The prefix of a single address.
    full: u8,
    subnet: &'static [u8],
    prefix: u8,
    gateway: &'static [u8],
    subnet_chain: &'static str,
    masquerade: &'static str,
    ports: &'static str,
    hairpin: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        number: 2,
        full: 32,
        subnet: &[10, 244, 0, 0],
        prefix: 20,
        gateway: &[10, 244, 0, 1],
        subnet_chain: "masquerade_0af40000_20",
        masquerade: "masquerade4",
        ports: "ports4",
        hairpin: "hairpin4",
    },
    Family {
        number: 10,
        full: 128,
        subnet: &[0xfd, 0, 0, 0x10, 2, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        prefix: 64,
        gateway: &[0xfd, 0, 0, 0x10, 2, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        subnet_chain: "masquerade_fd000010024400000000000000000000_64",
        masquerade: "masquerade6",
        ports: "ports6",
        hairpin: "hairpin6",
    },
];
const MTU: u32 = 1500;
/// 100 Mbit/s and 1 Mbit, in bytes.
const RATE: u32 = 12_500_000;
const BURST: u32 = 125_000;
const CONTAINER_PORT: u16 = 80;

struct Pod {
    number: [u8; 2],
    host_name: String,
    host_mac: [u8; 6],
    pod_mac: [u8; 6],
    host_port: u16,
    owner: String,
}

impl Pod {
    fn numbered(text: &str) -> io::Result<Self> {
        let number: u16 = text.parse().map_err(io::Error::other)?;
        let [high, low] = number.to_be_bytes();
        Ok(Self {
            number: [high, low],
            host_name: format!("bare{number}"),
            host_mac: [2, 0, 0, 1, high, low],
            pod_mac: [2, 0, 0, 2, high, low],
            host_port: 20_000 + number,
            owner: format!("weft/bare-{number}/eth0"),
        })
    }

    fn address(&self, family: &Family) -> Vec<u8> {
        let host_part = family.subnet.len() - self.number.len();
        family.subnet.iter().copied().take(host_part).chain(self.number).collect()
    }
}

fn add(pod: &Pod, netns: &File) -> io::Result<()> {
    let host = Kernel::open(NETLINK_ROUTE)?;
    let firewall = Kernel::open(NETLINK_NETFILTER)?;
    host.carry_out(pair(pod, netns))?;
    let host_index = host.index_of(&pod.host_name)?;
    host.carry_out(host_end(pod, host_index))?;
    fs::write(format!("/proc/sys/net/ipv4/conf/{}/route_localnet", pod.host_name), "1")?;
    firewall.carry_out(in_transaction(elements(pod).map(|element| element.added())))?;

    setns(netns, CloneFlags::CLONE_NEWNET)?;
    let inside = Kernel::open(NETLINK_ROUTE)?;
    let index = inside.index_of("eth0")?;
    inside.carry_out(pod_end(pod, index))?;
    inside.settle(index, |of| pod.address(of))?;
    host.settle(host_index, |of| of.gateway.to_vec())
}

fn del(pod: &Pod) -> io::Result<()> {
    let host = Kernel::open(NETLINK_ROUTE)?;
    let firewall = Kernel::open(NETLINK_NETFILTER)?;
    firewall.carry_out(in_transaction(elements(pod).map(|element| element.deleted())))?;
    let name = attribute(IFLA_IFNAME, &text(&pod.host_name));
    host.carry_out(vec![Message::new(RTM_DELLINK, 0, [link_header(0, false), name].concat())])
}

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
const RTM_NEWQDISC: u16 = 36;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const REPLACE: u16 = 0x100;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;

fn pair(pod: &Pod, netns: &File) -> Vec<Message> {
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_NET_NS_FD: u16 = 28;
    const IFLA_NUM_TX_QUEUES: u16 = 31;
    const IFLA_NUM_RX_QUEUES: u16 = 32;
    let one = 1_u32.to_ne_bytes();
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_INFO_DATA: u16 = 2;
    const VETH_INFO_PEER: u16 = 1;
    let end = |name: &str, mac: &[u8]| {
        let parts = [attribute(IFLA_IFNAME, &text(name)), attribute(IFLA_ADDRESS, mac)];
        let queues = [attribute(IFLA_NUM_TX_QUEUES, &one), attribute(IFLA_NUM_RX_QUEUES, &one)].concat();
        [link_header(0, false), parts.concat(), attribute(IFLA_MTU, &MTU.to_ne_bytes()), queues].concat()
    };
    let fd = netns.as_raw_fd().to_ne_bytes();
    let peer = [end("eth0", &pod.pod_mac), attribute(IFLA_NET_NS_FD, &fd)].concat();
    let info =
        [attribute(IFLA_INFO_KIND, b"veth"), attribute(IFLA_INFO_DATA, &attribute(VETH_INFO_PEER, &peer))];
    let body = [end(&pod.host_name, &pod.host_mac), attribute(IFLA_LINKINFO, &info.concat())].concat();
    vec![Message::new(RTM_NEWLINK, CREATE | EXCL, body)]
}

fn host_end(pod: &Pod, index: u32) -> Vec<Message> {
    const IFLA_IFALIAS: u16 = 20;
    let alias = attribute(IFLA_IFALIAS, pod.owner.as_bytes());
    let mut messages = vec![without_link_local(index), bucket(index)];
    messages.push(Message::new(RTM_SETLINK, 0, [link_header(index, true), alias].concat()));
    messages.extend(FAMILIES.iter().map(|of| address(of, index, of.gateway, of.full)));
    messages.extend(FAMILIES.iter().map(|of| neighbour(of, index, &pod.address(of), &pod.pod_mac)));
    let from_gateway = |of: &Family| attribute(RTA_PREFSRC, of.gateway);
    messages.extend(
        FAMILIES
            .iter()
            .map(|of| route(of, index, (&pod.address(of), of.full), (RT_SCOPE_LINK, from_gateway(of)))),
    );
    messages
}

fn pod_end(pod: &Pod, index: u32) -> Vec<Message> {
    let via = |of: &Family| (RT_SCOPE_UNIVERSE, attribute(RTA_GATEWAY, of.gateway));
    let on_link = || (RT_SCOPE_LINK, Vec::new());
    let up = Message::new(RTM_SETLINK, 0, link_header(index, true));
    let mut messages = vec![without_link_local(index), bucket(index), up];
    messages.push(link_local(index, &pod.pod_mac));
    messages.extend(FAMILIES.iter().map(|of| address(of, index, &pod.address(of), of.prefix)));
    messages.extend(FAMILIES.iter().map(|of| neighbour(of, index, of.gateway, &pod.host_mac)));
    messages.extend(FAMILIES.iter().map(|of| route(of, index, (of.gateway, of.full), on_link())));
    messages.extend(FAMILIES.iter().map(|of| route(of, index, (of.subnet, of.prefix), via(of))));
    messages.extend(FAMILIES.iter().map(|of| route(of, index, (&[], 0), via(of))));
    messages
}

/// `struct ifinfomsg`.
fn link_header(index: u32, up: bool) -> Vec<u8> {
    let up = u32::from(up);
    [0, index, up, up].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn without_link_local(index: u32) -> Message {
    const IFLA_AF_SPEC: u16 = 26;
    const AF_INET6: u16 = 10;
    const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
    const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
    let mode = attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
    let spec = attribute(IFLA_AF_SPEC, &attribute(AF_INET6, &mode));
    Message::new(RTM_SETLINK, 0, [link_header(index, false), spec].concat())
}

/// The address that the kernel makes of the hardware address, at once.
fn link_local(index: u32, [a, b, c, d, e, f]: &[u8; 6]) -> Message {
    const NODAD_PERMANENT: u32 = 0x02 | 0x80;
    let ip = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, *b, *c, 0xff, 0xfe, *d, *e, *f];
    flagged_address(10, index, (&ip, 64), NODAD_PERMANENT)
}

/// A token bucket that a packet waits in for 50 ms at most.
fn bucket(index: u32) -> Message {
    const TCA_KIND: u16 = 1;
    const TCA_OPTIONS: u16 = 2;
    const TCA_TBF_PARMS: u16 = 1;
    const TCA_TBF_RATE64: u16 = 4;
    const TCA_TBF_BURST: u16 = 6;
    const TC_H_ROOT: u32 = u32::MAX;
    const TC_LINKLAYER_ETHERNET: u8 = 1;
    let rate = [[0, TC_LINKLAYER_ETHERNET, 0, 0], [0; 4], RATE.to_ne_bytes()].concat();
    let limit = (RATE / 20 + BURST).to_ne_bytes();
    // `struct tc_tbf_qopt`: two rates of twelve bytes, and the limit.
    let parameters = [rate.as_slice(), &[0; 12], &limit, &[0; 8]].concat();
    let options = [
        attribute(TCA_TBF_PARMS, &parameters),
        attribute(TCA_TBF_RATE64, &u64::from(RATE).to_ne_bytes()),
        attribute(TCA_TBF_BURST, &BURST.to_ne_bytes()),
    ];
    let header = [0, index, 1 << 16, TC_H_ROOT, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let body = [header, attribute(TCA_KIND, b"tbf\0"), attribute(TCA_OPTIONS, &options.concat())];
    Message::new(RTM_NEWQDISC, CREATE | REPLACE, body.concat())
}

fn address(of: &Family, index: u32, ip: &[u8], prefix: u8) -> Message {
    const NODAD_PERMANENT_NOPREFIXROUTE: u32 = 0x02 | 0x80 | 0x200;
    flagged_address(of.number, index, (ip, prefix), NODAD_PERMANENT_NOPREFIXROUTE)
}

fn flagged_address(family: u8, index: u32, (ip, prefix): (&[u8], u8), flags: u32) -> Message {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_FLAGS: u16 = 8;
    let header = [&[family, prefix, 0, 0], &index.to_ne_bytes()[..]].concat();
    let flags = attribute(IFA_FLAGS, &flags.to_ne_bytes());
    let body = [header, attribute(IFA_LOCAL, ip), attribute(IFA_ADDRESS, ip), flags].concat();
    Message::new(RTM_NEWADDR, CREATE | EXCL, body)
}

fn neighbour(of: &Family, index: u32, ip: &[u8], mac: &[u8]) -> Message {
    const NDA_DST: u16 = 1;
    const NDA_LLADDR: u16 = 2;
    const NUD_PERMANENT: u16 = 0x80;
    let state = NUD_PERMANENT.to_ne_bytes();
    let header = [&[of.number, 0, 0, 0], &index.to_ne_bytes()[..], &state, &[0, 0]].concat();
    let body = [header, attribute(NDA_DST, ip), attribute(NDA_LLADDR, mac)].concat();
    Message::new(RTM_NEWNEIGH, CREATE | REPLACE, body)
}

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;

fn route(of: &Family, index: u32, (to, prefix): (&[u8], u8), (scope, more): (u8, Vec<u8>)) -> Message {
    const RT_TABLE_MAIN: u8 = 254;
    const RTPROT_STATIC: u8 = 4;
    const RTN_UNICAST: u8 = 1;
    let mut body = vec![of.number, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST];
    body.extend([0; 4]);
    if prefix > 0 {
        body.extend(attribute(RTA_DST, to));
    }
    body.extend(attribute(RTA_OIF, &index.to_ne_bytes()));
    body.extend(more);
    Message::new(RTM_NEWROUTE, CREATE | EXCL, body)
}

const RTM_GETROUTE: u16 = 26;

fn route_to(of: &Family, index: u32, to: &[u8]) -> Message {
    let header = vec![of.number, of.full, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let body = [header, attribute(RTA_DST, to), attribute(RTA_OIF, &index.to_ne_bytes())];
    Message::new(RTM_GETROUTE, 0, body.concat())
}

/// Whether the answer is a route whose type (`struct rtmsg`, behind the header of 16 bytes) is that of the node's own addresses.
fn is_local(answer: &[u8]) -> bool {
    const RTN_LOCAL: u8 = 2;
    answer.get(4..6) == Some(&RTM_NEWROUTE.to_ne_bytes()[..]) && answer.get(23) == Some(&RTN_LOCAL)
}

/// An element of one of the table's maps or sets.
struct Element {
    set: &'static str,
    key: Vec<u8>,
    data: Option<Vec<u8>>,
    owner: String,
}

/// Masquerade, the port, and the pod's way to itself, for both families.
fn elements(pod: &Pod) -> impl Iterator<Item = Element> {
    const NFTA_DATA_VALUE: u16 = 1;
    const NFTA_DATA_VERDICT: u16 = 2;
    const NFTA_VERDICT_CODE: u16 = 1;
    const NFTA_VERDICT_CHAIN: u16 = 2;
    const NFT_JUMP: i32 = -3;
    const TCP: u8 = 6;
    let word = |port: u16| [&port.to_be_bytes()[..], &[0, 0]].concat();
    FAMILIES.iter().flat_map(move |of| {
        let element = |set, key, data| Element { set, key, data, owner: pod.owner.clone() };
        let code = attribute(NFTA_VERDICT_CODE, &NFT_JUMP.to_be_bytes());
        let jump = [code, attribute(NFTA_VERDICT_CHAIN, &text(of.subnet_chain))].concat();
        let port = [vec![TCP, 0, 0, 0], word(pod.host_port)].concat();
        let to = [pod.address(of), word(CONTAINER_PORT)].concat();
        [
            element(of.masquerade, pod.address(of), Some(nested(NFTA_DATA_VERDICT, &jump))),
            element(of.ports, port, Some(attribute(NFTA_DATA_VALUE, &to))),
            element(of.hairpin, pod.address(of).repeat(2), None),
        ]
    })
}

const NFTABLES: u16 = 10;

impl Element {
    fn added(&self) -> Message {
        const NFTA_SET_ELEM_DATA: u16 = 2;
        const NFTA_SET_ELEM_USERDATA: u16 = 6;
        const NFT_MSG_NEWSETELEM: u16 = 12;
        let data = self.data.as_ref().map(|data| nested(NFTA_SET_ELEM_DATA, data)).unwrap_or_default();
        let owner = text(&self.owner);
        let comment = [&[0, owner.len() as u8], owner.as_slice()].concat();
        let more = [data, attribute(NFTA_SET_ELEM_USERDATA, &comment)].concat();
        self.message(NFT_MSG_NEWSETELEM, CREATE | EXCL, &more)
    }

    fn deleted(&self) -> Message {
        const NFT_MSG_DELSETELEM: u16 = 14;
        self.message(NFT_MSG_DELSETELEM, 0, &[])
    }

    fn message(&self, kind: u16, flags: u16, more: &[u8]) -> Message {
        const NFPROTO_INET: u8 = 1;
        const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
        const NFTA_SET_ELEM_LIST_SET: u16 = 2;
        const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
        const NFTA_LIST_ELEM: u16 = 1;
        const NFTA_SET_ELEM_KEY: u16 = 1;
        const NFTA_DATA_VALUE: u16 = 1;
        let key = nested(NFTA_SET_ELEM_KEY, &attribute(NFTA_DATA_VALUE, &self.key));
        let element = nested(NFTA_LIST_ELEM, &[&key, more].concat());
        let body = [
            vec![NFPROTO_INET, 0, 0, 0],
            attribute(NFTA_SET_ELEM_LIST_TABLE, &text("weft")),
            attribute(NFTA_SET_ELEM_LIST_SET, &text(self.set)),
            nested(NFTA_SET_ELEM_LIST_ELEMENTS, &element),
        ];
        Message::new((NFTABLES << 8) | kind, flags, body.concat())
    }
}

/// All or nothing. The answer comes to the message before the end.
fn in_transaction(messages: impl IntoIterator<Item = Message>) -> Vec<Message> {
    const NFNL_MSG_BATCH_BEGIN: u16 = 16;
    const NFNL_MSG_BATCH_END: u16 = 17;
    let edge = |kind| Message::new(kind, 0, [&[0, 0], &NFTABLES.to_be_bytes()[..]].concat());
    let mut all = vec![edge(NFNL_MSG_BATCH_BEGIN)];
    all.extend(messages);
    all.iter_mut().rev().take(1).for_each(|last| last.flags |= ACK);
    all.push(edge(NFNL_MSG_BATCH_END));
    all
}

struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16, body: Vec<u8>) -> Self {
        Self { kind, flags: REQUEST | flags, body }
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    const NLA_F_NESTED: u16 = 0x8000;
    attribute(kind | NLA_F_NESTED, value)
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// A netlink socket.
struct Kernel(Socket);

impl Kernel {
    fn open(protocol: isize) -> io::Result<Self> {
        let socket = Socket::new(protocol)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// All in one packet, with one answer: to the message that asks for it, or else to the last one.
    fn carry_out(&self, mut messages: Vec<Message>) -> io::Result<()> {
        if messages.iter().all(|message| message.flags & ACK == 0) {
            messages.iter_mut().rev().take(1).for_each(|last| last.flags |= ACK);
        }
        self.send(&messages)?;
        let answer = self.receive()?;
        match answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(number) => Err(io::Error::from_raw_os_error(-number)),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }

    fn index_of(&self, name: &str) -> io::Result<u32> {
        let body = [link_header(0, false), attribute(IFLA_IFNAME, &text(name))].concat();
        self.send(&[Message::new(RTM_GETLINK, 0, body)])?;
        let answer = self.receive()?;
        let index = answer.get(20..24).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
        index.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    /// Until the link called by its `index` carries packets, as an ADD is answered no earlier: the kernel takes note of the
    /// carrier where it is asked for the link, and takes packets to an IPv6 address where a route says so.
    fn settle(&self, index: u32, address: impl Fn(&Family) -> Vec<u8>) -> io::Result<()> {
        let look = || Message::new(RTM_GETLINK, 0, link_header(index, false));
        let routes =
            || FAMILIES.iter().filter(|of| of.full == 128).map(|of| route_to(of, index, &address(of)));
        loop {
            let asked: Vec<_> = std::iter::once(look()).chain(routes()).collect();
            self.send(&asked)?;
            let answers = asked.iter().map(|_| self.receive()).collect::<io::Result<Vec<_>>>()?;
            if answers.iter().skip(1).all(|answer| is_local(answer)) {
                return Ok(());
            }
        }
    }

    fn send(&self, messages: &[Message]) -> io::Result<()> {
        let mut packet = Vec::new();
        for (sequence, Message { kind, flags, body }) in messages.iter().enumerate() {
            packet.extend((16 + body.len() as u32).to_ne_bytes());
            packet.extend(kind.to_ne_bytes());
            packet.extend(flags.to_ne_bytes());
            packet.extend((sequence as u32).to_ne_bytes());
            packet.extend([0; 4]);
            packet.extend(body);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        self.0.send(&packet, 0).map(drop)
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(8192);
        self.0.recv(&mut buffer, 0)?;
        Ok(buffer)
    }
}
