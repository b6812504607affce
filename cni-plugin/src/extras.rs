//! Applying what goes with addresses, taking it back, and comparing it: the same behind another plugin as for a pod of
//! Weft's own.

use weft_datapath::Nft;

use crate::identity::Identity;
use crate::plan::Extras;
use crate::undo::Undo;
use crate::{Error, ports};

/// Makes all of `extras`, or nothing. They are taken back unless the answer is kept.
pub(crate) fn apply<'a>(
    identity: &'a Identity,
    extras: &'a Extras,
) -> Result<Undo<impl Fn() -> Result<(), weft_datapath::Error> + use<'a>, weft_datapath::Error>, Error> {
    let elements = Undo::by(|| take_back(identity, extras));
    if !extras.is_empty() {
        ports::install(&Nft::open()?, extras)?;
        ports::route_loopback(extras)?;
    }
    Ok(elements)
}

/// What of `extras` does not stand.
pub(crate) fn missing(extras: &Extras) -> Result<Vec<String>, Error> {
    let mut missing = not_masqueraded(extras)?;
    missing.extend(ports::not_published(extras)?);
    Ok(missing)
}

/// Also for an attempt that failed: where the answer was lost, the elements may stand. Nobody else's are touched.
fn take_back(identity: &Identity, extras: &Extras) -> Result<(), weft_datapath::Error> {
    if extras.is_empty() {
        return Ok(());
    }
    let addresses: Vec<_> = extras.masquerade.iter().map(|element| element.address.ip()).collect();
    let nft = Nft::open()?;
    let unpublished = ports::unpublish(&nft, &extras.published);
    nft.stop_masquerading(&identity.mark(), &addresses).and(unpublished)
}

fn not_masqueraded(extras: &Extras) -> Result<Vec<String>, Error> {
    if extras.masquerade.is_empty() {
        return Ok(Vec::new());
    }
    let nft = Nft::open()?;
    let mut differences = Vec::new();
    for element in &extras.masquerade {
        let ip = element.address.ip();
        match nft.find(ip)? {
            Some(found) if found.is_of(&element.owner) => {}
            Some(found) => differences.push(format!("{ip} is masqueraded for {:?}", found.owner)),
            None => differences.push(format!("{ip} is no longer masqueraded")),
        }
    }
    Ok(differences)
}
