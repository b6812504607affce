//! Which attachment is meant, and what leases and runtimes know of it.

use std::path::PathBuf;

use weft_ipam::Ipam;
use weft_ipam::lease::{Attachment, Lease};

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
}

impl Record {
    /// `namespace/name`, where it is known.
    pub(super) fn pod(&self) -> Option<String> {
        let of_lease = self.lease.as_ref().and_then(|lease| lease.pod.clone());
        let pod = of_lease.or_else(|| self.kept.as_ref()?.pod());
        pod.map(|pod| pod.to_string())
    }
}

/// The one that `question` means.
pub(super) fn find(question: &Question, files: &[File]) -> Result<Record, Error> {
    choose(question, all(question, files)?)
}

/// All that there are.
pub(crate) fn all(question: &Question, files: &[File]) -> Result<Vec<Record>, Error> {
    let mut records: Vec<Record> = Vec::new();
    for (lease, dir) in leases(question, files)? {
        let attachment = lease.attachment.clone();
        records.push(Record { attachment, lease: Some(lease), data_dir: Some(dir), kept: None });
    }
    for kept in kept::all(&question.cache_dir)? {
        if !configuration::is_of_weft(&kept.configuration) {
            continue;
        }
        match records.iter_mut().find(|record| record.attachment == kept.attachment) {
            Some(record) => record.kept = Some(kept),
            None => {
                let attachment = kept.attachment.clone();
                records.push(Record { attachment, lease: None, data_dir: None, kept: Some(kept) });
            }
        }
    }
    Ok(records)
}

/// All leases, each with the directory that it is in.
fn leases(question: &Question, files: &[File]) -> Result<Vec<(Lease, PathBuf)>, Error> {
    let mut leases = Vec::new();
    for dir in configuration::data_dirs(question, files) {
        for network in networks(&dir)? {
            let found = Ipam::open(&network, &dir)?.leases()?;
            leases.extend(found.into_iter().map(|lease| (lease, dir.clone())));
        }
    }
    Ok(leases)
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
