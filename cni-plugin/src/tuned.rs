//! Tuning an interface that another plugin has made.

use std::path::Path;

use weft_cni_spec::AddRequest;
use weft_datapath::{Error as Refused, Interface, Link, Neighbour, NetNs, Nft, Rtnl, Shaping, sysctl};
use weft_ipam::lease::Assigned;

use crate::Error;
use crate::config::Sysctl;
use crate::identity::Identity;
use crate::plan::Tuned;
use crate::undo::Undo;

pub(crate) mod backup;

use backup::Backup;

/// Does all of it, or nothing: what was done is undone on every early return.
///
/// What the interface was like is written down first, for it may outlive the container, as hardware does. A pair of
/// Weft's own goes with it, so there nothing is.
pub(crate) fn apply(
    request: &AddRequest,
    identity: &Identity,
    tuned: &Tuned,
    addresses: &[Assigned],
) -> Result<(), Error> {
    if tuned.is_nothing() {
        return Ok(());
    }
    let site = Site::open(&request.netns, identity, tuned)?;
    let backup = Backup::of(&request.conf, &request.id);
    let noted = if tuned.has_attributes() && site.own.is_none() { backup.write(&site.link)? } else { None };
    let noted = Undo::by(|| backup.replace(noted.as_ref()));
    let before = site.before(tuned)?;

    let parameters = Undo::by(|| site.set(&before));
    site.set(&parameters_of(tuned))?;
    let attributes = Undo::by(|| site.adjust(&site.as_before(tuned), addresses));
    if tuned.has_attributes() {
        site.adjust(&tuned.pod, addresses)?;
    }
    let from_pod = shaped(&site.inside, &tuned.pod.name, tuned.from_pod)?;
    let to_pod = site.shape_way_to_pod(tuned)?;

    to_pod.keep();
    from_pod.keep();
    attributes.keep();
    parameters.keep();
    noted.keep();
    Ok(())
}

/// A parameter's path below `/proc/sys/net`, and its value.
type Parameter = (Vec<String>, String);

/// Where the interface is, and what it is like before anything is done to it.
struct Site {
    netns: NetNs,
    inside: Rtnl,
    host: Rtnl,
    link: Link,
    /// The neighbours that it knows for good: the kernel forgets them when the hardware address changes.
    neighbours: Vec<Neighbour>,
    /// The end on the node of a pair that Weft made, where something of the interface is to be changed.
    own: Option<Link>,
}

impl Site {
    fn open(netns: &Path, identity: &Identity, tuned: &Tuned) -> Result<Self, Error> {
        let netns = NetNs::open(netns).map_err(Error::UnusableNetns)?;
        let (inside, host) = (netns.rtnl()?, Rtnl::open()?);
        let ifname = &tuned.pod.name;
        let link = inside.link(ifname)?.ok_or_else(|| Error::NoInterface { ifname: ifname.clone() })?;
        let own = if tuned.has_attributes() { host.link(&identity.host_ifname)? } else { None };
        let own = own.filter(|own| own.alias.as_deref() == Some(identity.mark().as_str()));
        let mut neighbours = if tuned.pod.mac.is_some() { inside.observe()?.neighbours } else { Vec::new() };
        neighbours.retain(|(index, _)| *index == link.index);
        let neighbours = neighbours.into_iter().map(|(_, neighbour)| neighbour).collect();
        Ok(Self { netns, inside, host, link, neighbours, own })
    }

    /// The parameters that `tuned` sets, as they are now. One that can only be written is not among them.
    fn before(&self, tuned: &Tuned) -> Result<Vec<Parameter>, Refused> {
        let now = |(path, _): Parameter| {
            let parts: Vec<_> = path.iter().map(String::as_str).collect();
            let value = sysctl::get(&parts).ok().flatten()?;
            Some((path, value))
        };
        let wanted = parameters_of(tuned);
        if wanted.is_empty() {
            return Ok(wanted);
        }
        self.netns.run(|| wanted.into_iter().filter_map(now).collect())
    }

    fn set(&self, parameters: &[Parameter]) -> Result<(), Refused> {
        if parameters.is_empty() {
            return Ok(());
        }
        let set = |(path, value): &Parameter| {
            let parts: Vec<_> = path.iter().map(String::as_str).collect();
            sysctl::set(&parts, value)
        };
        self.netns.run(|| parameters.iter().try_for_each(set))?
    }

    /// Gives the interface the attributes of `pod`, and the other end what has to agree with them: a routed pod is a
    /// permanent neighbour of the node, and a pod may be held to its address.
    fn adjust(&self, pod: &Interface, addresses: &[Assigned]) -> Result<(), Refused> {
        self.inside.configure(&Interface { neighbours: self.neighbours.clone(), ..pod.clone() })?;
        let Some(own) = &self.own else { return Ok(()) };
        let is_routed = own.master.is_none();
        let mac = pod.mac.filter(|_| is_routed);
        let known = |mac| addresses.iter().map(move |a| Neighbour { ip: a.address.ip(), mac });
        let neighbours = mac.into_iter().flat_map(known).collect();
        self.host.configure(&Interface {
            mtu: pod.mtu,
            up: false,
            neighbours,
            ..Interface::named(&own.name)
        })?;
        match pod.mac {
            Some(mac) if !is_routed => pin(&own.name, mac),
            _ => Ok(()),
        }
    }

    /// The attributes that `tuned` sets, as they were.
    fn as_before(&self, tuned: &Tuned) -> Interface {
        let (link, pod) = (&self.link, &tuned.pod);
        Interface {
            mac: link.mac.filter(|_| pod.mac.is_some()),
            mtu: pod.mtu.map(|_| link.mtu),
            promisc: pod.promisc.map(|_| link.promisc),
            allmulti: pod.allmulti.map(|_| link.allmulti),
            tx_queue_len: pod.tx_queue_len.map(|_| link.tx_queue_len),
            ..pod.clone()
        }
    }

    fn shape_way_to_pod<'a>(
        &'a self,
        tuned: &'a Tuned,
    ) -> Result<Undo<impl Fn() -> Result<(), Refused> + use<'a>, Refused>, Error> {
        let ends = tuned.to_pod.map(|_| other_end(&self.host, &self.inside, &tuned.pod.name)).transpose()?;
        shaped(&self.host, &ends.map_or_else(String::new, |end| end.name), tuned.to_pod)
    }
}

/// Shapes what leaves by `name`, if it is to be.
fn shaped<'a>(
    socket: &'a Rtnl,
    name: &str,
    shaping: Option<Shaping>,
) -> Result<Undo<impl Fn() -> Result<(), Refused> + use<'a>, Refused>, Error> {
    let name = name.to_owned();
    match shaping.map(|shaping| socket.shape(&name, shaping)).transpose() {
        Err(error) if error.errno() == nix::errno::Errno::EEXIST => Err(Error::Shaped { link: name }),
        Err(error) => {
            // It may have been the answer that was lost, and not the shaping.
            if is_shaped(socket, &name, shaping)? {
                socket.unshape(&name)?;
            }
            Err(error.into())
        }
        Ok(_) => Ok(Undo::by(move || shaping.map_or(Ok(()), |_| socket.unshape(&name)))),
    }
}

fn is_shaped(socket: &Rtnl, name: &str, shaping: Option<Shaping>) -> Result<bool, Refused> {
    let seen = socket.observe()?;
    let expected = |link: &Link| Some((link.index, shaping?.shaped(link.mtu)));
    Ok(seen.link(name).and_then(expected).is_some_and(|expected| seen.shaped.contains(&expected)))
}

/// Where the pod is held to a hardware address, it is from now on this one.
fn pin(port: &str, mac: weft_datapath::Mac) -> Result<(), Refused> {
    let Some(nft) = Nft::open_if_any()? else { return Ok(()) };
    match nft.pinned_source(port)? {
        Some(held) if held.mac != mac => nft.pin_source(&weft_datapath::PinnedSource { mac, ..held }),
        _ => Ok(()),
    }
}

fn parameters_of(tuned: &Tuned) -> Vec<Parameter> {
    let owned = |parameter: &Sysctl| {
        let path = parameter.path(&tuned.pod.name).into_iter().map(str::to_owned).collect();
        (path, parameter.value.clone())
    };
    tuned.sysctls.iter().map(owned).collect()
}

/// Sets parameters of the namespace that the calling thread is in.
pub(crate) fn set(sysctls: &[Sysctl], ifname: &str) -> Result<(), Refused> {
    sysctls.iter().try_for_each(|parameter| sysctl::set(&parameter.path(ifname), &parameter.value))
}

/// The end of the pair that is on the node. Both must name each other: the index alone could be that of some other link,
/// where the pair's end is in a third namespace.
pub(crate) fn other_end(host: &Rtnl, inside: &Rtnl, ifname: &str) -> Result<Link, Error> {
    let pod = inside.link(ifname)?;
    let other = pod.as_ref().and_then(|pod| pod.peer).map(|index| host.link_by_index(index)).transpose()?;
    let own = pod.map(|pod| pod.index);
    let ifname = ifname.to_owned();
    other.flatten().filter(|other| other.peer.is_some() && other.peer == own).ok_or(Error::NoPair { ifname })
}
