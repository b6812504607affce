//! What stands on the node, for those who look at many pods: each kind is listed once, when it is first asked for.

use std::cell::OnceCell;

use weft_datapath::{Masqueraded, Nft, Observed, PinnedSource, Published, Rtnl};

use crate::Error;

/// The node of the calling thread.
#[derive(Debug, Default)]
pub(crate) struct Node {
    observed: OnceCell<Observed>,
    elements: OnceCell<Elements>,
}

/// What is in Weft's maps, whoever owns it; nothing on a kernel without nf_tables.
#[derive(Debug, Default)]
pub(crate) struct Elements {
    pub(crate) masqueraded: Vec<Masqueraded>,
    pub(crate) published: Vec<Published>,
    pub(crate) sources: Vec<PinnedSource>,
}

impl Node {
    pub(crate) fn observed(&self) -> Result<&Observed, Error> {
        if let Some(observed) = self.observed.get() {
            return Ok(observed);
        }
        let observed = Rtnl::open()?.observe()?;
        Ok(self.observed.get_or_init(|| observed))
    }

    pub(crate) fn elements(&self) -> Result<&Elements, Error> {
        if let Some(elements) = self.elements.get() {
            return Ok(elements);
        }
        let elements = Elements::list()?;
        Ok(self.elements.get_or_init(|| elements))
    }
}

impl Elements {
    fn list() -> Result<Self, Error> {
        let Some(nft) = Nft::open_if_any()? else { return Ok(Self::default()) };
        Ok(Self {
            masqueraded: nft.masqueraded()?,
            published: nft.published()?,
            sources: nft.pinned_sources()?,
        })
    }
}
