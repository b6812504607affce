//! ADD behind another plugin: there is an interface with addresses, and Weft adds what its own keys ask for.

use weft_cni_spec::{AddRequest, AddResult, Dns};

use crate::allow_list::allow;
use crate::config::Config;
use crate::identity::Identity;
use crate::plan::{Extras, Inputs, Tuned};
use crate::{Error, addresses, extras, ports, tuned};

/// Does what the keys ask for to `CNI_IFNAME` of `result`, and passes `result` on with nothing changed but that.
pub(crate) fn attach(request: &AddRequest, result: AddResult) -> Result<AddResult, Error> {
    let config = Config::try_from(request)?;
    allow(&config.tuning.sysctls)?;
    let identity = Identity::of(request.network(), &request.id)?;
    let ifname = request.id.ifname.as_str();
    let addresses = addresses::of_interface(&result, ifname)?;
    let inputs = Inputs::new(&config, &identity, ifname, &addresses);
    let mut wanted = Extras::of(&inputs);
    ports::claim(&config, &mut wanted)?;
    let applied = extras::apply(&identity, &wanted)?;
    tuned::apply(&request.netns, &Tuned::of(&inputs))?;
    applied.keep();
    Ok(changed(result, config.dns))
}

/// Nothing of Weft's shows in a result but name service, where the configuration spells it out.
fn changed(result: AddResult, dns: Dns) -> AddResult {
    if dns == Dns::default() { result } else { AddResult { dns, ..result } }
}
