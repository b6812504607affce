//! Which attachment is meant, and what leases and runtimes know of it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use weft_cni_spec::log;
use weft_ipam::lease::{Attachment, Lease};
use weft_ipam::store::local::Error as Local;
use weft_ipam::store::{self, Damaged};
use weft_ipam::{Ipam, chain};

use super::configuration::{self, File};
use super::kept::{self, Kept};
use super::{Question, networks};
use crate::Error;

/// An attachment that somebody remembers.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) attachment: Attachment,
    pub(crate) lease: Option<Lease>,
    /// Where the lease is kept.
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) kept: Option<Kept>,
    /// Why its lease cannot be read, where it may have one.
    pub(crate) damage: Option<Damage>,
}

/// One lease that cannot be read, or all of a network.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    pub(crate) network: String,
    /// Whose it is, where that is known.
    pub(crate) attachment: Option<Attachment>,
    /// What it holds; nothing where it is all leases of the network.
    addresses: Vec<IpAddr>,
    why: String,
}

/// What leases and runtimes remember.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) records: Vec<Record>,
    /// What of it cannot be read.
    pub(crate) damages: Vec<Damage>,
}

impl Record {
    /// `namespace/name`, where it is known.
    pub(super) fn pod(&self) -> Option<String> {
        let of_lease = self.lease.as_ref().and_then(|lease| lease.pod.clone());
        let pod = of_lease.or_else(|| self.kept.as_ref()?.pod());
        pod.map(|pod| pod.to_string())
    }
}

impl Damage {
    fn of_one(network: &str, damaged: Damaged<Lease, weft_ipam::Error>) -> Self {
        let Damaged { addresses, remains, error } = damaged;
        let attachment = remains.map(|lease| lease.attachment);
        Self { network: network.to_owned(), attachment, addresses, why: chain(&error) }
    }

    fn of_all(network: &str, error: &weft_ipam::Error) -> Self {
        Self { network: network.to_owned(), attachment: None, addresses: Vec::new(), why: chain(error) }
    }

    /// Whether the lease of the attachment that `kept` tells of may be this one.
    fn may_be_of(&self, kept: &Kept) -> bool {
        self.network == kept.attachment.network()
            && match &self.attachment {
                Some(attachment) => *attachment == kept.attachment,
                None => self.addresses.is_empty() || self.addresses.iter().any(|ip| kept.has(*ip)),
            }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        match addresses.as_slice() {
            [] => write!(f, "leases of {} cannot be read: {}", self.network, self.why),
            some => {
                let (some, network) = (some.join(", "), &self.network);
                write!(
                    f,
                    "the lease of {some} in {network} cannot be read, and stays until its DEL: {}",
                    self.why
                )
            }
        }
    }
}

/// The one that `question` means. Of the others nothing is said but what of their leases cannot be read.
pub(super) fn find(question: &Question, files: &[File]) -> Result<Record, Error> {
    let Remembered { records, damages } = all(question, files)?;
    for damage in &damages {
        log(format_args!("weft-cni: {damage}"));
    }
    choose(question, records)
}

/// All that there are.
pub(crate) fn all(question: &Question, files: &[File]) -> Result<Remembered, Error> {
    let mut remembered = leases(question, files)?;
    let Remembered { records, damages } = &mut remembered;
    for kept in kept::all(&question.cache_dir)? {
        if !configuration::is_of_weft(&kept.configuration) {
            continue;
        }
        match records.iter_mut().find(|record| record.attachment == kept.attachment) {
            Some(record) => record.kept = Some(kept),
            None => {
                let attachment = kept.attachment.clone();
                let damage = damages.iter().find(|damage| damage.may_be_of(&kept)).cloned();
                records.push(Record { attachment, lease: None, data_dir: None, kept: Some(kept), damage });
            }
        }
    }
    Ok(remembered)
}

/// All leases, each with the directory that it is in.
fn leases(question: &Question, files: &[File]) -> Result<Remembered, Error> {
    let mut found = Remembered::default();
    for dir in configuration::data_dirs(question, files) {
        for network in networks(&dir)? {
            found.read(&network, &dir)?;
        }
    }
    Ok(found)
}

impl Remembered {
    /// What is damaged of one network hides neither the rest of it nor the other networks.
    fn read(&mut self, network: &str, dir: &Path) -> Result<(), Error> {
        let readable = match Ipam::open(network, dir)?.readable_leases() {
            Err(error) if !is_refused(&error) => {
                self.damages.push(Damage::of_all(network, &error));
                return Ok(());
            }
            readable => readable?,
        };
        self.damages.extend(readable.damaged.into_iter().map(|damaged| Damage::of_one(network, damaged)));
        self.records.extend(readable.leases.into_iter().map(|lease| {
            let (attachment, data_dir) = (lease.attachment.clone(), Some(dir.to_owned()));
            Record { attachment, lease: Some(lease), data_dir, kept: None, damage: None }
        }));
        Ok(())
    }
}

/// Whether it is not the leases that are at fault: who may not read these, may read nothing.
const fn is_refused(error: &weft_ipam::Error) -> bool {
    matches!(error, weft_ipam::Error::Store(store::Error::Local(Local::Io { .. } | Local::Locked { .. })))
}

fn choose(question: &Question, mut records: Vec<Record>) -> Result<Record, Error> {
    let is = |asked: &Option<String>, found: &str| asked.as_deref().is_none_or(|asked| asked == found);
    records.retain(|record| {
        let attachment = &record.attachment;
        is(&question.network, attachment.network())
            && is(&question.ifname, attachment.ifname())
            && question.container.as_deref().is_none_or(|id| attachment.container().starts_with(id))
            && (question.pod.is_none() || question.pod == record.pod())
    });
    // An id may be the beginning of another one.
    if let Some(id) = &question.container
        && records.iter().any(|record| record.attachment.container() == id)
    {
        records.retain(|record| record.attachment.container() == id);
    }
    match records.len() {
        0 => Err(nobody(question)),
        1 => records.pop().ok_or_else(|| nobody(question)),
        _ => Err(several(&records)),
    }
}

fn nobody(question: &Question) -> Error {
    let asked = question.container.as_ref().or(question.pod.as_ref()).map_or("", String::as_str);
    Error::Unexplained(format!(
        "nothing is known of {asked}: there is neither a lease (`weft-ipam list` shows all) nor a result below {}; \
         without both the pod was never attached, or is gone. --data-dir and --cache-dir say where else to look",
        question.cache_dir.display()
    ))
}

fn several(records: &[Record]) -> Error {
    let lines = records.iter().map(|record| {
        let pod = record.pod().map(|pod| format!(" ({pod})")).unwrap_or_default();
        format!("\n  {}{pod}", record.attachment)
    });
    let lines: String = lines.collect();
    Error::Unexplained(format!("several attachments fit: say more of the id, --network or --ifname{lines}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(container: &str, ifname: Option<&str>) -> Question {
        Question {
            container: Some(container.to_owned()),
            pod: None,
            network: None,
            ifname: ifname.map(str::to_owned),
            config: None,
            conf_dir: "/c".into(),
            data_dir: None,
            cache_dir: "/v".into(),
            netns: None,
        }
    }

    fn chosen(question: &Question) -> Result<String, String> {
        let record = |container: &str, ifname: &str| Record {
            attachment: Attachment::new("pods", container, ifname).unwrap(),
            lease: None,
            data_dir: None,
            kept: None,
            damage: None,
        };
        let records =
            vec![record("abc", "eth0"), record("abcd", "eth0"), record("xyz", "eth0"), record("xyz", "net1")];
        let chosen = choose(question, records).map_err(|error| error.to_string());
        chosen.map(|record| record.attachment.to_string())
    }

    #[test]
    fn the_beginning_of_an_id_is_enough_where_it_fits_one() {
        assert_eq!(chosen(&question("abcd", None)), Ok("eth0 of abcd in pods".to_owned()));
        assert_eq!(chosen(&question("abc", None)), Ok("eth0 of abc in pods".to_owned()));
        assert_eq!(chosen(&question("x", Some("net1"))), Ok("net1 of xyz in pods".to_owned()));
    }

    #[test]
    fn what_fits_several_or_none_is_told_with_what_to_say_next() {
        let several = chosen(&question("ab", None)).unwrap_err();
        assert!(several.ends_with("\n  eth0 of abc in pods\n  eth0 of abcd in pods"), "{several}");
        assert!(chosen(&question("nobody", None)).unwrap_err().starts_with("nothing is known of nobody"));
    }
}
