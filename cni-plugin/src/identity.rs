//! What an attachment is called on the host. Everything is derived from its three names, so that DEL finds it without
//! a record, and two ADDs never meet.

use weft_cni_spec::{AttachmentId, NetworkName};
use weft_datapath::Mac;
use weft_ipam::lease::{Attachment, NameError};

/// The names and addresses of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The attachment, as its lease has it.
    pub attachment: Attachment,
    /// The pair's end on the host: `weft` and 11 characters.
    pub host_ifname: String,
    /// That end's hardware address.
    pub host_mac: Mac,
    /// The pod's, unless one is asked for.
    pub pod_mac: Mac,
}

impl Identity {
    /// Derives them.
    ///
    /// # Errors
    /// Where the names cannot be those of a lease.
    pub fn of(network: &NetworkName, id: &AttachmentId) -> Result<Self, NameError> {
        let attachment = Attachment::new(network.as_str(), id.container.as_str(), id.ifname.as_str())?;
        Ok(Self::derive(attachment))
    }

    pub(crate) fn derive(attachment: Attachment) -> Self {
        let digest = digest(&attachment);
        Self {
            host_ifname: format!("weft{}", base32(digest)),
            host_mac: Mac::local(mix(digest ^ 1)),
            pod_mac: Mac::local(mix(digest ^ 2)),
            attachment,
        }
    }

    /// The group that links of the network are in until they are marked.
    #[must_use]
    pub fn group(&self) -> u32 {
        group_of(self.attachment.network())
    }

    /// `network/container/ifname`: the mark on everything that is the attachment's.
    #[must_use]
    pub fn mark(&self) -> String {
        mark_of(&self.attachment)
    }
}

/// [`Identity::mark`]. The kernel keeps 255 bytes of an alias, its final zero among them, which cuts only what no known
/// runtime sends.
pub(crate) fn mark_of(attachment: &Attachment) -> String {
    const LONGEST: usize = 254;
    let mut mark = [attachment.network(), attachment.container(), attachment.ifname()].join("/");
    mark.truncate(mark.floor_char_boundary(LONGEST));
    mark
}

/// FNV-1a of the three names, mixed. It must be the same in every release: a DEL may run years after its ADD, and
/// a name that came out differently would leave the interface behind.
fn digest(attachment: &Attachment) -> u64 {
    digest_of(&[attachment.network(), attachment.container(), attachment.ifname()])
}

fn digest_of(names: &[&str]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    // No name can hold a zero byte, so it keeps them apart.
    let bytes = names.iter().flat_map(|name| name.bytes().chain([0]));
    mix(bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME)))
}

/// A group that no other network's links are in, and nobody else's: people number theirs from 1.
pub(crate) fn group_of(network: &str) -> u32 {
    const HIGH: u32 = 1 << 31;
    digest_of(&[network]) as u32 | HIGH
}

/// The finalizer of `MurmurHash3`: every bit of the input changes half of the output.
const fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The low 55 bits as 11 characters that are easy to tell apart.
fn base32(number: u64) -> String {
    const ALPHABET: [char; 32] = [
        'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u',
        'v', 'w', 'x', 'y', 'z', '2', '3', '4', '5', '6', '7', '8',
    ];
    let digit = |place: u32| ALPHABET.get((number >> (5 * place)) as usize % ALPHABET.len()).copied();
    (0..11).filter_map(digit).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn identity(network: &str, container: &str, ifname: &str) -> Identity {
        Identity::derive(Attachment::new(network, container, ifname).unwrap())
    }

    #[test]
    fn the_name_of_an_attachment_is_the_same_in_every_release() {
        let identity = identity("weft", "3f2a9c", "eth0");
        assert_eq!(identity.host_ifname, "weftm8gbgp3x7d6");
        assert_eq!(identity.host_mac.to_string(), "f6:5a:e1:6c:64:f4");
        assert_eq!(identity.mark(), "weft/3f2a9c/eth0");
    }

    #[test]
    fn names_differ_wherever_attachments_do() {
        let mut names = HashSet::new();
        for container in 0..20_000 {
            assert!(names.insert(identity("weft", &container.to_string(), "eth0").host_ifname));
        }
        assert_ne!(identity("a", "bc", "d").host_ifname, identity("ab", "c", "d").host_ifname);
        assert!(names.iter().all(|name| name.len() == 15));
    }

    #[test]
    fn the_two_ends_have_different_addresses() {
        let identity = identity("weft", "c", "eth0");
        assert_ne!(identity.host_mac, identity.pod_mac);
    }

    #[test]
    fn a_mark_fits_into_an_alias() {
        assert_eq!(identity(&"n".repeat(200), &"c".repeat(100), "eth0").mark().len(), 254);
    }
}
