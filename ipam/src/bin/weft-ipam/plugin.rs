//! The verbs of the CNI specification.

use std::path::Path;
use std::time::Duration;

use weft_cni_spec::{
    AddRequest, AddResult, AttachmentId, CheckRequest, Code, Conf, DelRequest, Dns, Error, GcRequest,
    IpConfig, Plugin, StatusRequest, Version,
};
use weft_ipam::config::{self, Config, Location, Mistakes};
use weft_ipam::lease::{Attachment, Lease, NameError, NetnsIdentity, Pod};
use weft_ipam::store::etcd::Settings;
use weft_ipam::{Request, resolv_conf};

/// The IPAM plugin.
pub(crate) struct Ipam;

impl Plugin for Ipam {
    fn about(&self) -> String {
        "weft-ipam assigns addresses to containers. It is a CNI IPAM plugin: name it as \"ipam\": {\"type\": \
         \"weft-ipam\"} in the\nconfiguration of a plugin that delegates, with the keys of host-local. To see what is \
         assigned: weft-ipam list"
            .to_owned()
    }

    fn enters_namespace(&self) -> bool {
        false
    }

    fn add(&self, request: &AddRequest) -> Result<AddResult, Error> {
        let config = Config::parse(&request.conf.document).map_err(invalid)?;
        check_expressible(&config, request.conf.version)?;
        let dns = name_service(config.resolv_conf.as_deref())?;
        let ipam = open(&request.conf, &config.location())?;
        let wish = Request {
            requested: config::requested_addresses(&request.conf.document, &request.args).map_err(invalid)?,
            pod: Pod::from_args(&request.args),
            netns: NetnsIdentity::of(&request.netns).ok(),
            ..Request::new(attachment(&request.conf, &request.id)?)
        };
        let lease = ipam.reserve(&config.pool, wish).map_err(failed)?.keep();
        Ok(AddResult { ips: addresses(&lease), routes: config.routes, dns, ..AddResult::default() })
    }

    fn del(&self, request: &DelRequest) -> Result<(), Error> {
        let location = Config::locate(&request.conf.document).map_err(invalid)?;
        let ipam = open(&request.conf, &location)?;
        ipam.release(&attachment(&request.conf, &request.id)?).map_err(failed)?;
        Ok(())
    }

    fn check(&self, request: &CheckRequest) -> Result<(), Error> {
        let location = Config::locate(&request.conf.document).map_err(invalid)?;
        let attachment = attachment(&request.conf, &request.id)?;
        let lease = open(&request.conf, &location)?.lookup(&attachment).map_err(failed)?;
        let lease = lease.ok_or_else(|| Error::new(DIFFERS, format!("{attachment} holds no address")))?;
        let reported =
            |ip: &IpConfig| request.prev_result.ips.iter().any(|other| other.address == ip.address);
        match addresses(&lease).iter().find(|ip| !reported(ip)) {
            None => Ok(()),
            Some(ip) => {
                let what = format!("{attachment} holds {}, but prevResult does not say so", ip.address);
                Err(Error::new(DIFFERS, what))
            }
        }
    }

    fn gc(&self, request: &GcRequest) -> Result<(), Error> {
        let location = Config::locate(&request.conf.document).map_err(invalid)?;
        let valid: Result<Vec<_>, _> = request.valid.iter().map(|id| attachment(&request.conf, id)).collect();
        open(&request.conf, &location)?.retain(&valid?).map_err(failed)?;
        Ok(())
    }

    fn status(&self, request: &StatusRequest) -> Result<(), Error> {
        let not_available = |error: Error| Error { code: Code::NOT_AVAILABLE, ..error };
        let config = Config::parse(&request.conf.document).map_err(invalid).map_err(not_available)?;
        let ipam = open_hurried(&request.conf, config.location()).map_err(not_available)?;
        ipam.check_room(&config.pool).map_err(failed).map_err(not_available)
    }
}

/// CHECK found something else than ADD left.
const DIFFERS: Code = Code(101);

fn open(conf: &Conf, location: &Location) -> Result<weft_ipam::Ipam, Error> {
    weft_ipam::Ipam::open_at(conf.name.as_str(), location).map_err(failed)
}

/// Runtimes set STATUS no limit, and wait for it before anything else. weft-cni gives it 700 ms.
///
/// Of etcd's members fewer than half may be silent, or else none answers. So one member gets all the time, and the first of three
/// half of it: to check a password alone (bcrypt) takes one 0.1 s, and more when it is busy.
fn open_hurried(conf: &Conf, location: Location) -> Result<weft_ipam::Ipam, Error> {
    const LIMIT: Duration = Duration::from_millis(500);
    const ETCD_LIMIT: Duration = Duration::from_millis(640);
    match location {
        Location::Etcd(settings) => {
            let timeout = settings.timeout.min(ETCD_LIMIT);
            let attempts = settings.endpoints.len().div_ceil(2).max(1) as u32;
            let attempt = settings.attempt.min(timeout / attempts);
            open(conf, &Location::Etcd(Settings { timeout, attempt, ..*settings }.into()))
        }
        Location::Directory(dir) => {
            weft_ipam::Ipam::open_waiting(conf.name.as_str(), &dir, LIMIT).map_err(failed)
        }
    }
}

fn attachment(conf: &Conf, id: &AttachmentId) -> Result<Attachment, Error> {
    Attachment::new(conf.name.as_str(), id.container.as_str(), id.ifname.as_str())
        .map_err(|error: NameError| Error::caused(Code::INVALID_ENVIRONMENT, &error))
}

fn addresses(lease: &Lease) -> Vec<IpConfig> {
    let ips = lease.addresses.iter();
    ips.map(|ip| IpConfig { address: ip.address, gateway: ip.gateway, interface: None }).collect()
}

fn check_expressible(config: &Config, version: Version) -> Result<(), Error> {
    match config.pool.crowded_family() {
        Some(family) if version < Version::V0_3_0 => {
            let what = format!(
                "CNI version {version} knows one address of a family, but ipam.ranges has several sets"
            );
            Err(Error::new(Code::INVALID_CONFIG, format!("{what} of {family:?}")))
        }
        _ => Ok(()),
    }
}

fn name_service(path: Option<&Path>) -> Result<Dns, Error> {
    let Some(path) = path else { return Ok(Dns::default()) };
    resolv_conf::read(path).map_err(|error| {
        Error::new(Code::IO, format!("cannot read ipam.resolvConf {}", path.display()))
            .with_details(error.to_string())
    })
}

fn invalid(mistakes: Mistakes) -> Error {
    Error::new(Code::INVALID_CONFIG, mistakes.to_string())
}

fn failed(error: weft_ipam::Error) -> Error {
    Error::caused(error.code(), &error)
}
