//! Leases whose pods are gone, though nobody said so.

use weft_cni_spec::log;

use super::{Error, Ipam, chain};
use crate::alloc;
use crate::lease::Lease;

impl Ipam {
    /// Ends the leases that are abandoned ([`Lease::is_abandoned`]) and could be evicted, and returns what they were.
    ///
    /// An ADD that is just happening is safe: its namespace is there, so its lease is not abandoned. And namespaces are
    /// looked at without the lock, but only leases that are still the same afterwards are ended. Of a lease that is damaged nobody
    /// can tell, so it stays.
    pub fn reclaim(&self) -> Result<Vec<Lease>, Error> {
        self.reclaim_of(self.readable_leases()?.leases)
    }

    /// [`Ipam::reclaim`], for who tells of it in words of his own.
    pub fn end_abandoned(&self) -> Result<Vec<Lease>, Error> {
        self.end_abandoned_of(self.readable_leases()?.leases)
    }

    /// Whether nothing can use the addresses of `lease` any more ([`Lease::is_abandoned`]).
    pub fn is_abandoned(&self, lease: &Lease) -> bool {
        self.is_here && lease.is_abandoned((self.boot_id)().as_deref())
    }

    /// Whether [`Ipam::reclaim`] would end `lease`. It is evicted then.
    pub fn would_reclaim(&self, lease: &Lease) -> bool {
        self.is_here && self.would_reclaim_in((self.boot_id)().as_deref(), lease)
    }

    /// Whether a lease was reclaimed that `error` blames.
    pub(super) fn reclaims_for(&self, error: &Error) -> Result<bool, Error> {
        let blamed = match error {
            Error::Alloc(alloc::Error::Exhausted { .. }) => self.readable_leases()?.leases,
            Error::Alloc(alloc::Error::Taken { address, .. }) => {
                let record = self.view(|view| view.holder_of(*address))?;
                record.iter().map(|record| self.decode(record)).collect::<Result<_, _>>()?
            }
            Error::AlreadyHeld { attachment, .. } => self.lookup(attachment)?.into_iter().collect(),
            _ => return Ok(false),
        };
        Ok(!self.reclaim_of(blamed)?.is_empty())
    }

    /// Where the leases of earlier boots were not looked for in this one, they end. Nobody's request fails because of leases that are
    /// others': what cannot be done now is the next one's.
    pub(super) fn sweep_after_boot(&self) {
        if self.store.is_swept() || !self.is_here {
            return;
        }
        match self.end_earlier_boots() {
            Ok(0) => {}
            Ok(ended) => log(format_args!("weft-ipam: leases of earlier boots that were reclaimed: {ended}")),
            Err(error) => {
                let why = chain(&error);
                log(format_args!("weft-ipam: the leases of earlier boots are not all reclaimed: {why}"));
            }
        }
    }

    fn end_earlier_boots(&self) -> Result<usize, Error> {
        let this_boot = (self.boot_id)();
        let mut earlier = self.readable_leases()?.leases;
        earlier.retain(|lease| lease.is_of_another_boot(this_boot.as_deref()));
        let ended = self.end_all(earlier)?;
        self.store.mark_swept()?;
        Ok(ended.len())
    }

    fn reclaim_of(&self, leases: Vec<Lease>) -> Result<Vec<Lease>, Error> {
        let ended = self.end_abandoned_of(leases)?;
        for Lease { attachment, .. } in &ended {
            log(format_args!(
                "weft-ipam: reclaimed the addresses of {attachment}, whose network namespace is gone"
            ));
        }
        Ok(ended)
    }

    fn end_abandoned_of(&self, mut abandoned: Vec<Lease>) -> Result<Vec<Lease>, Error> {
        if !self.is_here {
            return Ok(Vec::new());
        }
        let this_boot = (self.boot_id)();
        abandoned.retain(|lease| self.would_reclaim_in(this_boot.as_deref(), lease));
        self.end_all(abandoned)
    }

    /// What the kernel had for a lease of another boot ended with that, so there is nothing to evict.
    fn would_reclaim_in(&self, this_boot: Option<&str>, lease: &Lease) -> bool {
        lease.is_of_another_boot(this_boot) || lease.is_abandoned(this_boot) && self.is_evicted(lease)
    }

    fn is_evicted(&self, lease: &Lease) -> bool {
        let evicted = (self.evict)(lease);
        if let Err(why) = &evicted {
            log(format_args!(
                "weft-ipam: {} keeps its addresses, although it is gone: {why}",
                lease.attachment
            ));
        }
        evicted.is_ok()
    }
}
