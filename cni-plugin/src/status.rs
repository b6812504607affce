//! STATUS.

use weft_cni_spec::StatusRequest;
use weft_datapath::{Nft, Rtnl};
use weft_ipam::Ipam;

use crate::Error;
use crate::config::Config;
use crate::detach::evict;

/// Whether an ADD would succeed: the configuration is good, the kernel can be talked to, and there is an address left.
/// It looks at nothing whose cost grows with the node, for containerd asks at every status call of the kubelet.
pub(crate) fn status(request: &StatusRequest) -> Result<(), Error> {
    ready(request).map_err(|error| Error::NotReady(Box::new(error)))
}

fn ready(request: &StatusRequest) -> Result<(), Error> {
    let config = Config::try_from(request)?;
    Rtnl::open()?;
    if config.masquerade {
        Nft::open()?;
    }
    let ipam = Ipam::open(request.conf.name.as_str(), &config.ipam.data_dir)?.evicting_with(evict);
    Ok(ipam.check_room(&config.ipam.pool)?)
}
