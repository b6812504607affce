//! Which machine a node is. Two machines of one name would end each other's leases, for each sees that the namespaces of the
//! other's are gone. So a node's leases have an owner, and a transaction of any other machine changes nothing.

use std::fmt;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::commit::Transaction;
use super::view::{Seen, Snapshot};
use super::{Error, EtcdStore};

/// What tells one machine from another. The id stays when it boots, and containers of a machine that have none of its own, or
/// another one, have its boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// `/etc/machine-id`.
    pub id: Option<String>,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: Option<String>,
}

/// This machine, as the owner of its node's leases.
#[derive(Debug)]
pub(super) struct Owner {
    ours: Machine,
    /// What the node's key is taken to say, until a transaction finds something else.
    expected: Mutex<String>,
}

/// What the node's key says, compared with this machine.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// It is this machine.
    Ours,
    /// It is nobody yet, or this machine before it booted.
    Due,
    /// It is another machine.
    Foreign,
}

impl Machine {
    /// The machine that this process runs on. `None` where nothing tells it from others.
    pub fn this() -> Option<Self> {
        let id = fs::read_to_string("/etc/machine-id").ok();
        let id = id.map(|id| id.trim().to_owned()).filter(|id| is_word(id));
        let boot = crate::ipam::this_boot().filter(|boot| is_word(boot));
        (id.is_some() || boot.is_some()).then_some(Self { id, boot })
    }

    /// As the node's key says it.
    fn parse(value: &str) -> Self {
        let (id, boot) = value.split_once(' ').unwrap_or((value, "-"));
        let known = |text: &str| Some(text.to_owned()).filter(|text| text != "-");
        Self { id: known(id), boot: known(boot) }
    }

    fn standing(&self, value: Option<&str>) -> Standing {
        let Some(owner) = value.map(Self::parse) else { return Standing::Due };
        let is_same = |one: &Option<String>, other: &Option<String>| one.is_some() && one == other;
        if is_same(&self.boot, &owner.boot) {
            Standing::Ours
        } else if is_same(&self.id, &owner.id) {
            Standing::Due
        } else {
            Standing::Foreign
        }
    }
}

/// `MACHINE BOOT`, with `-` for what is not known.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [id, boot] = [&self.id, &self.boot].map(|part| part.as_deref().unwrap_or("-"));
        write!(f, "{id} {boot}")
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Owner {
    pub(super) fn new(ours: Machine) -> Self {
        let expected = Mutex::new(ours.to_string());
        Self { ours, expected }
    }

    /// Whether leases of earlier boots were looked for: the node's key has the boot in which somebody last did.
    pub(super) fn is_swept(&self) -> bool {
        let boot = &self.ours.boot;
        boot.is_none() || Machine::parse(&self.expected()).boot == *boot
    }

    pub(super) fn expected(&self) -> MutexGuard<'_, String> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EtcdStore {
    /// Makes this machine the owner of the node's leases where nobody is, and where the machine that was has no lease any more.
    /// Where it was before it booted, it goes on as that until the leases of that boot were looked for.
    ///
    /// # Errors
    /// [`Error::OtherMachine`].
    pub(super) fn own(&self, owner: &Owner, deadline: Instant) -> Result<(), Error> {
        loop {
            let snapshot = Snapshot::new(self, deadline);
            let found = snapshot.value(&self.layout.node(&self.node))?;
            let standing = owner.ours.standing(found.value.as_deref());
            let leases = self.layout.leases_of(&self.node);
            match (standing, found.value.clone()) {
                (Standing::Ours, Some(value)) => {
                    *owner.expected() = value;
                    return Ok(());
                }
                (Standing::Due, Some(value)) if owner.ours.boot.is_some() => {
                    *owner.expected() = value;
                    return Ok(());
                }
                (Standing::Foreign, Some(value)) if snapshot.first_from(&leases, &leases)?.is_some() => {
                    return Err(self.other_machine(owner, value));
                }
                (Standing::Foreign, _) => drop(self.put_owner(owner, &found, Some(leases), deadline)?),
                _ => drop(self.put_owner(owner, &found, None, deadline)?),
            }
            self.contended(deadline)?;
        }
    }

    /// Whether a transaction would be this machine's to make.
    ///
    /// # Errors
    /// [`Error::OtherMachine`].
    pub(super) fn check_ours(&self, owner: &Owner) -> Result<(), Error> {
        let snapshot = Snapshot::new(self, self.deadline());
        let leases = self.layout.leases_of(&self.node);
        match snapshot.value(&self.layout.node(&self.node))?.value {
            Some(value)
                if owner.ours.standing(Some(&value)) == Standing::Foreign
                    && snapshot.first_from(&leases, &leases)?.is_some() =>
            {
                Err(self.other_machine(owner, value))
            }
            _ => Ok(()),
        }
    }

    fn other_machine(&self, owner: &Owner, theirs: String) -> Error {
        Error::OtherMachine { node: self.node.clone(), owner: theirs, ours: owner.ours.to_string() }
    }

    /// Makes this machine the owner of the node's leases, whoever was, and returns who that was.
    ///
    /// # Errors
    /// Where etcd does not answer, or this machine cannot be told from others.
    pub fn claim(&self) -> Result<Option<String>, Error> {
        let owner = self.owner.as_ref().ok_or_else(|| {
            Error::Setup("neither /etc/machine-id nor a boot id tells this machine from others".into())
        })?;
        let deadline = self.deadline();
        loop {
            let found = Snapshot::new(self, deadline).value(&self.layout.node(&self.node))?;
            if self.put_owner(owner, &found, None, deadline)? {
                return Ok(found.value);
            }
            self.contended(deadline)?;
        }
    }

    /// The leases of the boot that the node's key has were looked for.
    pub(super) fn has_swept(&self, owner: &Owner) -> Result<(), Error> {
        let deadline = self.deadline();
        let found = Snapshot::new(self, deadline).value(&self.layout.node(&self.node))?;
        let is_due = owner.ours.standing(found.value.as_deref()) == Standing::Due;
        if is_due && self.put_owner(owner, &found, None, deadline)? {
            *owner.expected() = owner.ours.to_string();
        }
        Ok(())
    }

    /// Whether it is written now; not if somebody else wrote, or there is a key that begins with `absent`.
    fn put_owner(
        &self,
        owner: &Owner,
        found: &Seen,
        absent: Option<String>,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let (key, ours) = (self.layout.node(&self.node), owner.ours.to_string());
        let transaction = Transaction::replacing(key, found.revision, ours, absent);
        Ok(self.connection.commit(&transaction, None, deadline)?.is_done())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(value: &str) -> Machine {
        Machine::parse(value)
    }

    #[test]
    fn a_machine_is_read_as_it_was_written() {
        for value in ["id boot", "- boot", "id -"] {
            assert_eq!(machine(value).to_string(), value);
        }
        assert_eq!(machine("id").to_string(), "id -");
        assert!(Machine::this().is_some());
    }

    #[test]
    fn a_machine_is_known_by_its_boot_or_its_id() {
        let ours = machine("id boot-2");
        assert_eq!(ours.standing(None), Standing::Due);
        for value in ["id boot-2", "- boot-2", "other boot-2"] {
            assert_eq!(ours.standing(Some(value)), Standing::Ours, "{value}");
        }
        assert_eq!(ours.standing(Some("id boot-1")), Standing::Due, "it has booted");
        for value in ["other boot-1", "- boot-1", "- -", ""] {
            assert_eq!(ours.standing(Some(value)), Standing::Foreign, "{value}");
        }
        assert_eq!(
            machine("- boot-2").standing(Some("- -")),
            Standing::Foreign,
            "what is unknown is not the same"
        );
    }
}
