//! `weft-ipam`: a CNI IPAM plugin for runtimes and other plugins, and a view of the leases for people.

#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

use weft_cni_spec::{EnvSource, run};

mod cli;
mod plugin;

/// The environment of this process.
struct ProcessEnv;

impl EnvSource for ProcessEnv {
    fn get(&self, name: &str) -> Option<String> {
        // What is no text becomes a text that no rule allows, and so an error that names the variable.
        let value = std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        value.filter(|value| !value.is_empty())
    }
}

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        return cli::run();
    }
    run(&plugin::Ipam, &ProcessEnv, io::stdin().lock(), &mut io::stdout().lock(), &mut io::stderr()).into()
}
