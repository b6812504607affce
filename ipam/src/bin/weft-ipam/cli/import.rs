//! `weft-ipam import`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use weft_ipam::lease::{Assigned, Attachment, FROM_HOST_LOCAL, Lease, Notes};
use weft_ipam::range::Pool;
use weft_ipam::{Import, Imported};

use super::host_local::{Contents, Directory, Held, Remembered};
use super::lease::{self, Life};
use super::place::{Network, Place};
use super::text::count;
use super::{Answer, Error, Exit};

mod exported;

/// Takes leases over: those of an export, or those of host-local, so that a running node moves over without restarting a pod.
///
/// From host-local:
///   1. weft-ipam import --from-host-local /var/lib/cni/networks/NAME --conf NEW.conflist
///   2. put NEW.conflist in the place of the old configuration
///   3. the first command again, for pods that came between
///
/// It may be repeated: what stands is not changed, but for leases that came from the same directory, are not in it any more, and
/// whose namespace is gone: those end. Pods whose namespace is gone are skipped, and so is what was released here since.
/// host-local's directory stays as it is.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// An export; - is standard input
    #[arg(
        value_name = "FILE",
        required_unless_present = "from_host_local",
        conflicts_with = "from_host_local"
    )]
    file: Option<PathBuf>,
    /// host-local's directory of the network; its lock is held meanwhile
    #[arg(long, value_name = "DIR")]
    from_host_local: Option<PathBuf>,
    /// Where the runtime remembers its results: it knows pods and namespaces, which host-local does not
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cni/results")]
    results: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// What came of an import.
#[derive(Default)]
struct Report {
    new: Vec<Lease>,
    known: usize,
    conflicts: Vec<(Lease, String)>,
    skipped: Vec<(String, String)>,
    assumed: Vec<(String, String)>,
    /// Leases that were taken over, and look wrong.
    warnings: Vec<(String, String)>,
    /// Came from host-local earlier, which has ended them since.
    ended: Vec<Lease>,
    /// The same, but perhaps somebody lives on them.
    left: Vec<(Lease, String)>,
    /// Addresses whose leases the export could not read.
    lost: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Error> {
    let report = match (&arguments.from_host_local, &arguments.file) {
        (Some(dir), _) => from_host_local(dir, arguments)?,
        (None, Some(file)) => from_export(file, &arguments.place)?,
        (None, None) => Report::default(),
    };
    let is_clean = report.conflicts.is_empty() && report.left.is_empty() && report.lost.is_empty();
    let exit = if is_clean { Exit::Done } else { Exit::Refused };
    Ok(Answer { text: if arguments.place.json { report.json() } else { report.text() }, exit })
}

impl Report {
    fn add(&mut self, network: &Network, import: Import) -> Result<(), Error> {
        let outcomes = network.ipam.import(&import).map_err(|error| network.partly_changed(error))?;
        for (lease, outcome) in import.leases.into_iter().zip(outcomes) {
            if outcome == Imported::New {
                self.warn_of(&lease, import.pool.as_ref());
            }
            match outcome {
                Imported::New => self.new.push(lease),
                Imported::Known => self.known += 1,
                Imported::Conflict(why) => self.conflicts.push((lease, why)),
            }
        }
        Ok(())
    }

    /// They are held all the same, for a pod may use them.
    fn warn_of(&mut self, lease: &Lease, pool: Option<&Pool>) {
        let Some(pool) = pool else { return };
        for address in lease.addresses.iter().map(|held| held.address.ip()) {
            let why = if pool.ranges().any(|range| range.gateway() == Some(address)) {
                "it is the gateway of its range"
            } else if !pool.ranges().any(|range| range.contains(address)) {
                "it is in none of the ranges"
            } else {
                continue;
            };
            self.warnings.push((format!("{address} of {}", lease.attachment), why.into()));
        }
    }

    fn text(&self) -> String {
        let mut lines: Vec<_> =
            self.new.iter().map(|lease| format!("took over {}", lease::line(lease))).collect();
        let named = |all: &[(String, String)], verb: &str| {
            all.iter().map(|(what, why)| format!("{verb} {what}: {why}")).collect::<Vec<_>>()
        };
        lines.extend(self.ended.iter().map(|lease| {
            format!(
                "ended {}: host-local has released it since, and its namespace is gone",
                lease::line(lease)
            )
        }));
        lines.extend(named(&self.assumed, "assumed for"));
        lines.extend(named(&self.warnings, "warning:"));
        lines.extend(named(&self.skipped, "skipped"));
        lines.extend(
            self.conflicts.iter().map(|(lease, why)| format!("conflict: {}: {why}", lease::line(lease))),
        );
        lines.extend(self.left.iter().map(|(lease, why)| format!("left {}: {why}", lease::line(lease))));
        lines.extend(self.lost.iter().map(|addresses| {
            format!(
                "not in the export: the lease of {addresses}, which was damaged; restart the pod that has it"
            )
        }));
        let (new, conflicts) = (count(self.new.len(), "lease"), count(self.conflicts.len(), "conflict"));
        let skipped = self.skipped.len();
        lines.push(format!("took over {new}, {} stood already, {skipped} skipped, {conflicts}", self.known));
        if !self.conflicts.is_empty() {
            lines.push("restart the pods of the conflicts: their addresses are not theirs here".into());
        }
        lines.join("\n") + "\n"
    }

    fn json(&self) -> String {
        let conflict = |(lease, why): &(Lease, String)| json!({ "lease": lease::json(lease), "why": why });
        let named = |all: &[(String, String)]| {
            all.iter().map(|(what, why)| json!({ "what": what, "why": why })).collect::<Value>()
        };
        let document = json!({
            "imported": self.new.iter().map(lease::json).collect::<Value>(),
            "known": self.known,
            "conflicts": self.conflicts.iter().map(conflict).collect::<Value>(),
            "ended": self.ended.iter().map(lease::json).collect::<Value>(),
            "left": self.left.iter().map(conflict).collect::<Value>(),
            "lost": self.lost,
            "warnings": named(&self.warnings),
            "skipped": named(&self.skipped),
            "assumed": named(&self.assumed),
        });
        format!("{document}\n")
    }
}

fn from_export(file: &Path, place: &Place) -> Result<Report, Error> {
    let (mut imports, mut lost) = (Vec::new(), Vec::new());
    // All of it is understood before any of it is written.
    for exported in exported::read(file, &place.networks)? {
        lost.extend(exported.lost());
        let network = place.open_named(exported.name.clone(), exported.node.as_deref())?;
        let import = exported.import().map_err(|why| Error::Export { path: file.into(), why })?;
        imports.push((network, import));
    }
    let mut report = Report { lost, ..Report::default() };
    for (network, import) in imports {
        report.add(&network, import)?;
    }
    Ok(report)
}

/// What is asked while host-local's files become leases.
struct Move<'a> {
    network: &'a Network,
    results: &'a Path,
    /// host-local's directory, as the leases name it.
    from: String,
    pool: Pool,
    /// What was freed here, and when.
    freed: Vec<(IpAddr, SystemTime)>,
}

fn from_host_local(dir: &Path, arguments: &Arguments) -> Result<Report, Error> {
    let network = network_of(dir, &arguments.place)?;
    let locked = Directory::lock(dir)?;
    let contents = locked.read()?.expect_readable()?;
    let known = network.ipam.last_pool().map_err(|error| network.unreadable(error))?;
    let is_first = known.is_none();
    let configured = arguments.place.network_conf()?.map(|conf| conf.config.pool);
    let freed = network.ipam.freed().map_err(|error| network.unreadable(error))?;
    let pool = configured.or(known).ok_or_else(|| Error::NoRanges { network: network.name.clone() })?;
    let from = dir.canonicalize().unwrap_or_else(|_| dir.into()).display().to_string();
    let moving = Move { network: &network, results: &arguments.results, from, pool, freed };

    let mut report = Report::default();
    moving.end_what_host_local_ended(&contents, &mut report)?;
    report.skipped = contents.skipped;
    let mut leases = Vec::new();
    for ((container, ifname), held) in &contents.held {
        match moving.lease(container, ifname.as_deref(), held, &mut report.assumed) {
            Ok(lease) => leases.push(lease),
            Err(why) => report.skipped.push((join(&held.addresses), format!("of {container}: {why}"))),
        }
    }
    leases.sort_by_key(|lease| lease.since);
    let given = contents.last.iter().filter(|_| is_first).flat_map(|(set, last)| moving.given(*set, *last));
    let import = Import { leases, freed: given.collect(), pool: Some(moving.pool.clone()) };
    report.add(&network, import)?;
    Ok(report)
}

/// By the configuration, by `--network`, or by the directory's name.
fn network_of(dir: &Path, place: &Place) -> Result<Network, Error> {
    if let Some(network) = place.open_conf()? {
        return Ok(network);
    }
    let name = place.networks.first().cloned();
    let name = name.or_else(|| Some(dir.canonicalize().ok()?.file_name()?.to_string_lossy().into_owned()));
    Network::open(name.unwrap_or_default(), &place.data_dir()?)
}

impl Move<'_> {
    /// A lease whose file is gone was released by host-local, between two imports. Where its namespace is gone too, nothing uses its
    /// addresses. Otherwise somebody may just have emptied the directory.
    fn end_what_host_local_ended(&self, contents: &Contents, report: &mut Report) -> Result<(), Error> {
        let (mut leases, _) = self.network.readable_leases()?;
        leases.retain(|lease| lease.notes.get(FROM_HOST_LOCAL).and_then(Value::as_str) == Some(&self.from));
        leases.retain(|lease| !contents.names(lease.attachment.container(), lease.attachment.ifname()));
        for lease in leases {
            let why = match Life::of(&self.network.ipam, &lease) {
                Life::Gone => {
                    self.network.ipam.end(&lease).map_err(|error| self.network.unchanged(error))?;
                    report.ended.push(lease);
                    continue;
                }
                Life::Lives => "its namespace is there",
                Life::Unknown | Life::Elsewhere => "nobody can tell whether its namespace is there",
            };
            let what = "host-local has no file of it any more, but";
            report.left.push((lease, format!("{what} {why}; where its pod is gone, release it")));
        }
        Ok(())
    }

    fn lease(
        &self,
        container: &str,
        ifname: Option<&str>,
        held: &Held,
        assumed: &mut Vec<(String, String)>,
    ) -> Result<Lease, String> {
        let network = &self.network.name;
        let remembered = Remembered::of(self.results, network, container, ifname)
            .or_else(|| Remembered::of(self.results, self.earlier_name()?, container, ifname))
            .unwrap_or_default();
        let netns = remembered
            .namespace()
            .map_err(|path| format!("its network namespace {} is gone", path.display()))?;
        if let Some(address) = held.addresses.iter().find(|address| self.was_freed_since(**address, held)) {
            return Err(format!("{address} was released here since"));
        }
        let ifname = ifname.or(remembered.ifname.as_deref()).unwrap_or_else(|| {
            assumed.push((container.into(), "its interface is eth0, for nobody says which it is".into()));
            "eth0"
        });
        let attachment = Attachment::new(network, container, ifname).map_err(|error| error.to_string())?;
        let mut addresses: Vec<_> =
            held.addresses.iter().map(|address| self.assigned(*address, &remembered, assumed)).collect();
        addresses.sort_by_key(|assigned| self.set_of(assigned.address.ip()));
        Ok(Lease {
            attachment,
            addresses,
            pod: remembered.pod,
            netns,
            boot_id: self.network.ipam.boot_id(),
            since: held.since,
            notes: Notes::from_iter([(FROM_HOST_LOCAL.into(), self.from.clone().into())]),
        })
    }

    /// What the network was called when host-local served it: it may be called otherwise now.
    fn earlier_name(&self) -> Option<&str> {
        Path::new(&self.from).file_name()?.to_str()
    }

    fn was_freed_since(&self, address: IpAddr, held: &Held) -> bool {
        self.freed.iter().any(|(freed, at)| *freed == address && *at > held.since)
    }

    fn set_of(&self, address: IpAddr) -> Option<usize> {
        let sets = self.pool.sets();
        sets.iter().position(|set| set.range_of(address).is_some())
    }

    /// With the prefix length and the gateway of its range, or of the result that the runtime remembers.
    fn assigned(
        &self,
        address: IpAddr,
        remembered: &Remembered,
        assumed: &mut Vec<(String, String)>,
    ) -> Assigned {
        let mut in_ranges = self.pool.ranges().filter(|range| range.contains(address));
        if let Some(range) = in_ranges.next()
            && let Ok(with_prefix) = IpNetwork::new(address, range.subnet().prefix())
        {
            return Assigned { address: with_prefix, gateway: range.gateway() };
        }
        if let Some((with_prefix, gateway)) = remembered.ips.iter().find(|(ip, _)| ip.ip() == address) {
            return Assigned { address: *with_prefix, gateway: *gateway };
        }
        let what = "its prefix is a single host's, for nobody says which it is";
        assumed.push((address.to_string(), what.into()));
        Assigned { address: address.into(), gateway: None }
    }

    /// host-local goes round its ranges: what is free up to the address it gave last was used, and should be used again last.
    fn given(&self, set: usize, (last, at): (IpAddr, SystemTime)) -> Vec<(IpAddr, SystemTime)> {
        const REMEMBERED: usize = 1_024;
        let set = self.pool.sets().get(set);
        let range = set.and_then(|set| set.range_of(last));
        let addresses = range.map(|range| range.up_to(last, REMEMBERED)).unwrap_or_default();
        addresses.into_iter().map(|address| (address, at)).collect()
    }
}

fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
