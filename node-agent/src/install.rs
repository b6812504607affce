//! Installing and uninstalling: everything is checked first, then done in the order that a running runtime needs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::conflist::{self, Flaw};
use crate::directory::{Directory, Error, Placed, Removed};

const WEFT_CNI: &str = "weft-cni";
const LOOPBACK: &str = "loopback";

/// What is to be installed, and where.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The plugins' executables.
    pub plugins: Vec<PathBuf>,
    /// Where the runtime looks for plugins, such as `/opt/cni/bin`.
    pub bin_dir: PathBuf,
    /// The network configuration list. It keeps its name.
    pub conf: PathBuf,
    /// Where the runtime looks for configurations, such as `/etc/cni/net.d`.
    pub conf_dir: PathBuf,
}

/// What an installation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Each file, in the order in which they were placed.
    pub files: Vec<(PathBuf, Placed)>,
    /// What may keep it from working.
    pub warnings: Vec<Warning>,
}

/// What an uninstallation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uninstalled {
    /// Each file that was recorded as ours, in the order in which they were removed.
    pub files: Vec<(PathBuf, Removed)>,
}

/// What may keep an installation from working.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Runtimes use the configuration whose name comes first.
    #[error("{} comes before {ours}: container runtimes use the first", theirs.display())]
    NotFirst {
        /// The configuration that comes before.
        theirs: PathBuf,
        /// The name of ours.
        ours: String,
    },
    /// The list names a plugin that is not there.
    #[error("the configuration names the plugin {name}, which is not in {}", bin_dir.display())]
    NoPlugin {
        /// The plugin's type.
        name: String,
        /// Where it should be.
        bin_dir: PathBuf,
    },
}

impl Warning {
    /// The configuration that comes before ours.
    pub(crate) fn theirs(self) -> Option<PathBuf> {
        match self {
            Self::NotFirst { theirs, .. } => Some(theirs),
            Self::NoPlugin { .. } => None,
        }
    }
}

/// One thing that is wrong with what is to be installed.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// A file cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A file has no name of its own that is text.
    #[error("{} has no name to install it by", path.display())]
    Nameless {
        /// The path.
        path: PathBuf,
    },
    /// A plugin is not a program.
    #[error("{} is not an executable for this kernel: it begins with neither an ELF header nor #!", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
    /// Two plugins have the same name.
    #[error("{} and another plugin have the same name", path.display())]
    Twice {
        /// The second one.
        path: PathBuf,
    },
    /// The configuration would be refused.
    #[error("{}: {flaw}", path.display())]
    Conf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// A file that is not ours is in the way.
    #[error(transparent)]
    InTheWay(Error),
}

/// Why nothing, or not all, was done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What is to be installed is wrong. Nothing was done.
    #[error("nothing was installed:{}", list(.0))]
    Mistakes(Vec<Mistake>),
    /// A directory could not be changed. Doing it again goes on where this ended.
    #[error(transparent)]
    Directory(#[from] Error),
}

/// A file that was read and found good.
struct Source {
    name: String,
    content: Vec<u8>,
}

/// Everything to install, read and checked.
struct Checked {
    plugins: Vec<Source>,
    conf: Source,
    types: Vec<String>,
}

/// Installs plugins, then their configuration. Doing it again changes nothing, and touches no file.
///
/// # Errors
/// [`Failure::Mistakes`] names everything that is wrong before anything is done.
pub fn install(what: &Installation) -> Result<Installed, Failure> {
    let Checked { plugins, conf, types } = check(what).map_err(Failure::Mistakes)?;
    let mut bin = Directory::create(&what.bin_dir)?;
    let mut net =
        if same(&what.bin_dir, &what.conf_dir) { None } else { Some(Directory::create(&what.conf_dir)?) };
    check_free(&bin, &plugins, net.as_ref().unwrap_or(&bin), &conf)?;
    let mut installed = Installed::default();
    installed.files.extend(place_all(&mut bin, &plugins)?);
    installed.warnings.extend(missing_plugins(&bin, &what.bin_dir, types)?);
    let net = net.as_mut().unwrap_or(&mut bin);
    installed.files.push((net.join(&conf.name), net.place(&conf.name, &conf.content, 0o644)?));
    installed.warnings.extend(configurations_before(net, &conf.name)?);
    Ok(installed)
}

/// Puts plugins there, and no configuration: the first half of an installation whose list is not known yet.
///
/// # Errors
/// As [`install`].
pub(crate) fn place_plugins(plugins: &[PathBuf], bin_dir: &Path) -> Result<Vec<(PathBuf, Placed)>, Failure> {
    let mut mistakes = Vec::new();
    let plugins = check_plugins(plugins, &mut mistakes);
    if !mistakes.is_empty() {
        return Err(Failure::Mistakes(mistakes));
    }
    let mut bin = Directory::create(bin_dir)?;
    let in_the_way = plugins.iter().filter_map(|plugin| bin.check_free(&plugin.name, &plugin.content).err());
    let in_the_way: Vec<_> = in_the_way.map(Mistake::InTheWay).collect();
    if !in_the_way.is_empty() {
        return Err(Failure::Mistakes(in_the_way));
    }
    Ok(place_all(&mut bin, &plugins)?)
}

/// Puts a list there whose plugins are in their place: the second half. It says what may keep it from working.
///
/// # Errors
/// Where a file that is not ours is in the way, or the directory cannot be changed.
pub(crate) fn place_list(
    name: &str,
    list: &str,
    conf_dir: &Path,
) -> Result<(PathBuf, Placed, Vec<Warning>), Error> {
    let mut net = Directory::create(conf_dir)?;
    let placed = net.place(name, list.as_bytes(), 0o644)?;
    let warnings = configurations_before(&net, name)?;
    Ok((net.join(name), placed, warnings))
}

/// Removes the configuration, then the plugins, as far as they are still what was installed.
///
/// # Errors
/// Where a directory cannot be changed. A directory that does not exist has nothing of ours.
pub fn uninstall(bin_dir: &Path, conf_dir: &Path) -> Result<Uninstalled, Error> {
    let mut uninstalled = Uninstalled::default();
    for dir in [conf_dir, bin_dir].into_iter().filter(|dir| dir.exists()) {
        let mut directory = Directory::open(dir)?;
        for name in directory.owned_names() {
            uninstalled.files.push((directory.join(&name), directory.remove(&name)?));
        }
    }
    Ok(uninstalled)
}

fn check(what: &Installation) -> Result<Checked, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let plugins = check_plugins(&what.plugins, &mut mistakes);
    let conf = read(&what.conf).map_err(|mistake| mistakes.push(mistake)).ok();
    let types = conf.as_ref().map(|conf| conflist::plugin_types(Path::new(&conf.name), &conf.content));
    let types = types.and_then(|types| {
        let mistake = |flaw| Mistake::Conf { path: what.conf.clone(), flaw };
        types.map_err(|flaws| mistakes.extend(flaws.into_iter().map(mistake))).ok()
    });
    match (conf, types) {
        (Some(conf), Some(types)) if mistakes.is_empty() => Ok(Checked { plugins, conf, types }),
        _ => Err(mistakes),
    }
}

fn check_plugins(paths: &[PathBuf], mistakes: &mut Vec<Mistake>) -> Vec<Source> {
    let mut names = BTreeSet::new();
    let mut plugins = Vec::new();
    for path in paths {
        match read(path).and_then(|source| check_plugin(path, source, &mut names)) {
            Ok(source) => plugins.push(source),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    plugins
}

fn read(path: &Path) -> Result<Source, Mistake> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Mistake::Nameless { path: path.into() })?.to_owned();
    let content = fs::read(path).map_err(|why| Mistake::Unreadable { path: path.into(), why })?;
    Ok(Source { name, content })
}

fn check_plugin(path: &Path, source: Source, names: &mut BTreeSet<String>) -> Result<Source, Mistake> {
    if !source.content.starts_with(b"\x7fELF") && !source.content.starts_with(b"#!") {
        return Err(Mistake::NotExecutable { path: path.into() });
    }
    if !names.insert(source.name.clone()) {
        return Err(Mistake::Twice { path: path.into() });
    }
    Ok(source)
}

/// The files that a plugin is placed as.
pub(crate) fn names_of(plugin: &Path) -> impl Iterator<Item = &OsStr> {
    let is_loopback_too = plugin.file_name() == Some(OsStr::new(WEFT_CNI));
    plugin.file_name().into_iter().chain(is_loopback_too.then_some(OsStr::new(LOOPBACK)))
}

fn place_all(bin: &mut Directory, plugins: &[Source]) -> Result<Vec<(PathBuf, Placed)>, Error> {
    let mut files = Vec::new();
    for plugin in plugins {
        files.push((bin.join(&plugin.name), bin.place(&plugin.name, &plugin.content, 0o755)?));
        files.extend(place_loopback(bin, plugin)?);
    }
    Ok(files)
}

/// Runtimes call a plugin `loopback` for every sandbox, and a node that has none can start no pod. `weft-cni` is one when it is called
/// by that name. Somebody else's stays; when it goes, it has changed.
fn place_loopback(bin: &mut Directory, plugin: &Source) -> Result<Option<(PathBuf, Placed)>, Error> {
    if plugin.name != WEFT_CNI {
        return Ok(None);
    }
    let placed = match bin.place(LOOPBACK, &plugin.content, 0o755) {
        Err(Error::Foreign { .. }) => Placed::Unchanged,
        placed => placed?,
    };
    Ok(Some((bin.join(LOOPBACK), placed)))
}

fn same(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.into());
    canonical(one) == canonical(other)
}

fn check_free(bin: &Directory, plugins: &[Source], net: &Directory, conf: &Source) -> Result<(), Failure> {
    let plugins = plugins.iter().map(|plugin| bin.check_free(&plugin.name, &plugin.content));
    let all = plugins.chain([net.check_free(&conf.name, &conf.content)]);
    let in_the_way: Vec<_> = all.filter_map(Result::err).map(Mistake::InTheWay).collect();
    if in_the_way.is_empty() { Ok(()) } else { Err(Failure::Mistakes(in_the_way)) }
}

fn missing_plugins(bin: &Directory, bin_dir: &Path, types: Vec<String>) -> Result<Vec<Warning>, Error> {
    let there = bin.names()?;
    let missing = types.into_iter().filter(|name| !there.contains(name));
    Ok(missing.map(|name| Warning::NoPlugin { name, bin_dir: bin_dir.into() }).collect())
}

fn configurations_before(net: &Directory, ours: &str) -> Result<Vec<Warning>, Error> {
    let names = net.names()?.into_iter();
    let before = names.filter(|name| conflist::is_read_by_runtimes(name) && name.as_str() < ours);
    Ok(before.map(|name| Warning::NotFirst { theirs: net.join(&name), ours: ours.into() }).collect())
}

fn list(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect()
}
