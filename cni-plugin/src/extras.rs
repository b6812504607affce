//! Applying what goes with addresses, taking it back, and comparing it: the same behind another plugin as for a pod of
//! Weft's own.

use weft_datapath::{Chain, Nft};

use crate::finding::{Finding, Findings};
use crate::identity::Identity;
use crate::plan::Extras;
use crate::undo::Undo;
use crate::{Error, ports};

/// Where all of it is.
pub(crate) const TABLE: &str = "nft inet weft";

/// The socket for all that `extras` ask for, if they ask for anything: what asks for nothing works on any kernel. One is enough
/// for an ADD, for closing one may take a while.
pub(crate) fn open(extras: &Extras) -> Result<Option<Nft>, Error> {
    Ok(if extras.is_empty() { None } else { Some(Nft::open()?) })
}

/// Makes all of `extras`, or nothing. They are taken back unless the answer is kept. `way` is the link that leads to the
/// pod, where that is known.
pub(crate) fn apply<'a>(
    nft: Option<&Nft>,
    identity: &'a Identity,
    extras: &'a Extras,
    way: Option<&str>,
) -> Result<Undo<impl Fn() -> Result<(), weft_datapath::Error> + use<'a>, weft_datapath::Error>, Error> {
    let elements = Undo::by(|| take_back(identity, extras));
    if let Some(nft) = nft.filter(|_| !extras.is_empty()) {
        ports::install(nft, extras)?;
        ports::route_loopback(extras, way)?;
    }
    Ok(elements)
}

/// What `extras` ask for, what of it stands, and what it stands on.
pub(crate) fn compare(extras: &Extras) -> Result<Vec<Finding>, Error> {
    if extras.is_empty() {
        return Ok(Vec::new());
    }
    let nft = Nft::open()?;
    let mut findings = Findings::at(TABLE);
    for element in &extras.masquerade {
        let ip = element.address.ip().to_string();
        let found = nft.find(element.address.ip())?;
        let found = found.map(|found| whose(ip.clone(), found.is_of(&element.owner), &found.owner));
        findings.note("masquerade", ip, found);
    }
    ports::compare(&mut findings, &nft, extras)?;
    note_chains(&mut findings, nft.chains(&extras.masquerade, &extras.published)?);
    Ok(findings.into_list())
}

/// `text`, with the name of another owner.
pub(crate) fn whose(text: String, is_own: bool, owner: &str) -> String {
    if is_own { text } else { format!("{text} of {owner}") }
}

/// Notes how many of their rules `chains` have.
pub(crate) fn note_chains(findings: &mut Findings, chains: Vec<Chain>) {
    for chain in chains {
        let counted = |rules| format!("{}, {rules} of {} rules", chain.name, chain.rules);
        findings.note("chain", counted(chain.rules), Some(counted(chain.standing)));
    }
}

/// Also for an attempt that failed: where the answer was lost, the elements may stand. Nobody else's are touched.
fn take_back(identity: &Identity, extras: &Extras) -> Result<(), weft_datapath::Error> {
    if extras.is_empty() {
        return Ok(());
    }
    let addresses: Vec<_> = extras.masquerade.iter().map(|element| element.address.ip()).collect();
    ports::withdraw(&Nft::open()?, &identity.mark(), &addresses, &extras.published)
}
