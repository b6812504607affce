//! `weft-node`: see [`weft_node::cli`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_node::cli::main(std::env::args_os())
}
