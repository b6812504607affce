//! STATUS.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use weft_cni_spec::StatusRequest;
use weft_datapath::{Nft, Rtnl};

use crate::allow_list::allow;
use crate::config::{Addressing, Config};
use crate::delegate::Delegate;
use crate::{Error, addresses};

mod node;

/// When STATUS answers at the latest. containerd asks at every status call of the kubelet and sets no limit of its own
/// (go-cni `cni.go`), so whatever the leases' lock or another plugin does must not hold it up.
const LIMIT: Duration = Duration::from_millis(800);

/// When another plugin must have answered. It has to be killed before Weft is gone.
const DELEGATE_LIMIT: Duration = Duration::from_millis(700);

/// Whether an ADD would succeed: the configuration is good, the node has what it takes, and there is an address left.
/// It looks at nothing whose cost grows with the node.
pub(crate) fn status(request: &StatusRequest) -> Result<(), Error> {
    let (answer, answered) = mpsc::channel();
    let request = request.clone();
    // Where it is not heard any more, the process ends with it. Reclaiming can be cut off anywhere, as by a kill.
    let deadline = Instant::now() + DELEGATE_LIMIT;
    let ask = move || drop(answer.send(ready(&request, deadline)));
    thread::Builder::new().spawn(ask).map_err(|e| Error::NotReady(Box::new(Error::Thread(e))))?;
    let readiness = answered.recv_timeout(LIMIT).map_err(|_late| Error::Unanswered { limit: LIMIT })?;
    readiness.map_err(|error| Error::NotReady(Box::new(error)))
}

fn ready(request: &StatusRequest, deadline: Instant) -> Result<(), Error> {
    let config = Config::try_from(request)?;
    allow(&config.tuning.sysctls)?;
    node::look(&config, &Rtnl::open()?)?;
    if config.masquerade {
        Nft::open()?;
    }
    match &config.addressing {
        Addressing::Leases(leases) => Ok(addresses::open(&request.conf, leases)?.check_room(&leases.pool)?),
        Addressing::Delegate(name) => {
            let delegate = Delegate::find(name, &request.path, &request.conf)?;
            Ok(delegate.status(deadline.saturating_duration_since(Instant::now()))?)
        }
        Addressing::Chained | Addressing::Nobody => Ok(()),
    }
}
