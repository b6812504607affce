//! ADD.

use weft_cni_spec::{AddRequest, AddResult, Dns, Route};
use weft_ipam::lease::Assigned;
use weft_ipam::resolv_conf;

use crate::addresses::Source;
use crate::allow_list::allow;
use crate::config::Config;
use crate::identity::Identity;
use crate::plan::{Inputs, Plan, Shared};
use crate::{Error, chained, extras, log, ports};

mod site;

use site::{Pair, Site};

/// Attaches the container, or adds to what the plugins before this one have attached.
pub(crate) fn attach(request: &AddRequest) -> Result<AddResult, Error> {
    match request.conf.prev_result()? {
        Some(result) => chained::attach(request, result),
        None => create(request),
    }
}

/// Makes the attachment: take addresses, decide, apply. What was done is undone on every early return.
///
/// On a bridge another IPAM plugin is asked when the interface is there, as by the reference's bridge: it may work on the
/// link, as DHCP does. Everywhere else addresses come first, for an ADD that gets none has then nothing to undo.
fn create(request: &AddRequest) -> Result<AddResult, Error> {
    let config = Config::try_from(request)?;
    allow(&config.tuning.sysctls)?;
    let identity = Identity::of(request.network(), &request.id)?;
    log::phase("config");
    let site = Site::open(&request.netns)?;
    let source = Source::open(request, &config)?;
    let _at_work = source.begin_work(&identity);
    if let Source::Delegate(_) = source {
        site.refuse_second(&identity, request.id.ifname.as_str())?;
    }
    log::phase("namespace");
    let decide = |addresses: &[Assigned], routes: &[Route]| {
        let mtu = config.mtu.map_or_else(|| site.detect_mtu(addresses), Ok)?;
        let inputs = Inputs::new(&config, &identity, request.id.ifname.as_str(), addresses);
        Ok::<_, Error>(Plan::new(&config.mode, Inputs { routes, mtu, ..inputs }))
    };

    let bare = source.is_asked_on_link(&config.mode).then(|| decide(&[], &[])).transpose()?;
    let early = bare.map(|plan| site.lay_bare(&plan)).transpose()?;
    let taken = source.take(request, &config, &identity)?;
    log::phase("ipam");
    log::fact("addresses", || join(&taken.addresses));
    let dns = name_service(&config, &taken.dns)?;
    let mut plan = decide(&taken.addresses, &taken.routes)?;
    let firewall = extras::open(&plan.extras)?;
    ports::claim(&config, firewall.as_ref(), &mut plan.extras)?;
    let answer = plan.result(&request.netns.to_string_lossy(), dns);
    log::phase("plan");

    let bridge = site.ensure_bridge(&plan)?;
    let late = if early.is_none() { Some(site.lay(&plan)?) } else { None };
    let pair = early.as_ref().or(late.as_ref());
    let pair = pair.expect("a pair that was not made before has just been made");
    let inside = site.bring_up(&plan, pair)?;
    let extras = extras::apply(firewall.as_ref(), &identity, &plan.extras, plan.way_to_pod())?;
    log::phase("nft");
    // What the kernel does in its own time it may have done by now.
    site.settle(&inside, &plan, pair)?;
    log::phase("settle");

    extras.keep();
    late.into_iter().for_each(Pair::keep);
    taken.keep();
    early.into_iter().for_each(Pair::keep);
    Ok(bridge.iter().fold(answer, Shared::report))
}

fn join(addresses: &[Assigned]) -> String {
    let addresses = addresses.iter().map(|assigned| assigned.address.to_string());
    addresses.collect::<Vec<_>>().join(",")
}

/// What the configuration spells out, or else what its `resolvConf` or another IPAM plugin says.
fn name_service(config: &Config, given: &Dns) -> Result<Dns, Error> {
    if config.dns != Dns::default() {
        return Ok(config.dns.clone());
    }
    let Some(path) = config.addressing.resolv_conf() else { return Ok(given.clone()) };
    resolv_conf::read(path).map_err(|source| Error::ResolvConf { path: path.to_owned(), source })
}
