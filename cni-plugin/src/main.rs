//! `weft-cni`, as containerd, CRI-O, podman or a person runs it.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;

use weft_cni::loopback::{self, Loopback};
use weft_cni::{ProcessEnvironment, Weft, cli};
use weft_cni_spec::EnvSource;

/// What a plugin asks for it needs until it ends.
#[global_allocator]
static HEAP: weft_datapath::Heap = weft_datapath::Heap::new();

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if ProcessEnvironment.get("CNI_COMMAND").is_none() && !arguments.is_empty() {
        return cli::run(&arguments);
    }
    // Not locked: what STATUS finds out it finds out on another thread, which may have something to say.
    let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
    let (env, conf) = (&ProcessEnvironment, configuration());
    if is_called(loopback::NAME) {
        return weft_cni_spec::run(&Loopback, env, conf, &mut stdout, &mut stderr).into();
    }
    weft_cni_spec::run(&Weft, env, conf, &mut stdout, &mut stderr).into()
}

fn is_called(name: &str) -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|program| Path::new(&program).file_name() == Some(OsStr::new(name)))
}

/// Standard input, unless a person sits at it: nobody types a configuration to `CNI_COMMAND=VERSION weft-cni`.
fn configuration() -> Box<dyn Read> {
    if io::stdin().is_terminal() { Box::new(io::empty()) } else { Box::new(io::stdin()) }
}
