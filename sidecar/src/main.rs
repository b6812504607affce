//! `weft-sidecar`: see [`weft_sidecar::cli`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_sidecar::cli::main(std::env::args_os())
}
