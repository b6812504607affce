//! The command line of `weft-sidecar`.
//!
//! Exit codes: 0 done, 1 failed (for `validate`: there are mistakes), 64 wrong usage or a configuration that a command
//! cannot work with. The result goes to stdout, everything about it to stderr.

mod explanation;
mod mistakes;
mod planning;
mod standing;
mod translation;
mod yaml;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use tracing::level_filters::LevelFilter;

use crate::bootstrap::bootstrap;
use crate::configuration::Configuration;
use crate::diagnostic::{Diagnostic, nearest};
use crate::graph::Graph;
use crate::model::Mesh;
use crate::read::files::Roots;
use crate::run::{self, run};
use crate::schema::{names, schema};
use crate::translate::translate;
use explanation::Question;
use mistakes::{Output, as_annotations, as_json, show};
use planning::Comparison;
use translation::Selection;

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

const ABOUT: &str = "Serves Envoy from Kubernetes and Gateway API documents in plain files";

const EXAMPLE: &str = "\
A first configuration, in a directory of its own:

  # /etc/weft/mesh/sidecar.yaml
  apiVersion: weft.dev/v1alpha1
  kind: Sidecar
  metadata: { name: checkout, namespace: shop }
  spec:
    tags: { version: v2 }
    xds: { socket: /run/weft/xds.sock }

Beside it go Service, EndpointSlice and HTTPRoute documents. Then:

  weft-sidecar validate /etc/weft/mesh
  weft-sidecar run --config /etc/weft/mesh &
  weft-sidecar bootstrap --config /etc/weft/mesh > /run/weft/envoy.json
  envoy -c /run/weft/envoy.json &
  curl -H 'Host: web' http://127.0.0.1:15001/

Every file saved from then on is in force some milliseconds later; a mistake is reported
with its file and line and changes nothing.";

#[derive(Debug, Parser)]
#[command(name = "weft-sidecar", version, about = ABOUT, after_help = EXAMPLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the configuration to Envoy and follow its changes
    Run {
        #[command(flatten)]
        config: Sources,
        /// How log lines look, on stderr
        #[arg(long, value_enum, default_value_t = LogFormat::Human)]
        log_format: LogFormat,
        /// The least severe log lines that are shown
        #[arg(long, value_name = "LEVEL", default_value = "info")]
        log_level: LevelFilter,
    },
    /// Show every mistake in a configuration; exit code 1 if there is one
    Validate {
        /// Directories with YAML and JSON files, or single files
        #[arg(required = true, value_name = "DIR")]
        config: Vec<PathBuf>,
        /// For whom they are shown
        #[arg(long, value_enum, default_value_t = Output::Human)]
        output: Output,
    },
    /// Print the bootstrap for Envoy, as JSON
    Bootstrap {
        #[command(flatten)]
        config: Config,
        /// Write it there instead, whole: for an image without a shell
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Print what Envoy would be sent, and which lines it comes from
    Translate {
        #[command(flatten)]
        config: Sources,
        #[command(flatten)]
        selection: Selection,
    },
    /// Show what would change in Envoy, and which connections would drain
    Plan {
        /// Directories with YAML and JSON files, or single files
        #[arg(required = true, value_name = "DIR")]
        config: Vec<PathBuf>,
        #[command(flatten)]
        comparison: Comparison,
    },
    /// Tell how Gateways, routes and policies stand, in the conditions of the Gateway API; exit code 1 if one is not good
    Status {
        /// Directories with YAML and JSON files, or single files
        #[arg(required = true, value_name = "DIR")]
        config: Vec<PathBuf>,
        /// For whom
        #[arg(long, value_enum, default_value_t = standing::Output::Human)]
        output: standing::Output,
    },
    /// Draw listeners, hosts, routes, clusters and endpoints, and what leads where
    Graph {
        #[command(flatten)]
        config: Sources,
        /// For what it is drawn
        #[arg(long, value_enum, default_value_t = Drawing::Mermaid)]
        output: Drawing,
    },
    /// Print the JSON Schema of the documents, for editors
    Schema {
        /// Only of this kind
        kind: Option<String>,
    },
    /// Print the completions for a shell
    Completions {
        /// Which one
        shell: Shell,
    },
    /// Write the manual, a page for each command
    Man {
        /// Into this directory
        directory: PathBuf,
    },
    /// Tell what would become of a request: listener, route, cluster, endpoints, and why not another route
    Explain {
        #[command(flatten)]
        config: Sources,
        #[command(flatten)]
        question: Question,
    },
}

#[derive(Debug, Args)]
struct Config {
    /// A directory with YAML and JSON files, or a single file; may be given several times
    #[arg(long = "config", required = true, value_name = "DIR")]
    paths: Vec<PathBuf>,
}

/// The workload's own files, and those of others.
#[derive(Debug, Args)]
struct Sources {
    #[command(flatten)]
    own: Config,
    /// A directory that weft-node keeps, with what others of the namespace wrote: what is wrong there is left out, also
    /// at the start; may be given several times
    #[arg(long, value_name = "DIR")]
    discovered: Vec<PathBuf>,
}

impl Sources {
    fn roots(self) -> Roots {
        Roots::new(self.own.paths).with_discovered(self.discovered)
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people
    Human,
    /// One JSON object in each line
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Drawing {
    /// For Graphviz
    Dot,
    /// For Markdown
    Mermaid,
    /// For browsers
    Svg,
}

/// Does what `args` say, the program's name being the first of them.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Cli::try_parse_from(args) {
        Ok(cli) => cli.command.execute(),
        Err(usage) => {
            let code = if usage.exit_code() == 0 { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
            usage.print().map_or(ExitCode::FAILURE, |()| code)
        }
    }
}

impl Command {
    fn execute(self) -> ExitCode {
        match self {
            Self::Run { config, log_format, log_level } => {
                log_to_stderr(log_format, log_level);
                serve(config.roots())
            }
            Self::Validate { config, output } => validate(config, output),
            Self::Bootstrap { config, to } => write_bootstrap(config.paths, to.as_deref()),
            Self::Translate { config, selection } => {
                with_mesh(config.roots(), |mesh| Ok(selection.print(&translate(mesh))?))
            }
            Self::Plan { config, comparison } => planned(config, &comparison),
            Self::Status { config, output } => standing(config, output),
            Self::Graph { config, output } => with_mesh(config.roots(), |mesh| {
                let graph = Graph::of(&translate(mesh))?;
                Ok(match output {
                    Drawing::Dot => graph.dot(),
                    Drawing::Mermaid => graph.mermaid(),
                    Drawing::Svg => graph.svg(),
                })
            }),
            Self::Schema { kind } => print_schema(kind.as_deref()),
            Self::Completions { shell } => completions(shell),
            Self::Man { directory } => manual(&directory),
            Self::Explain { config, question } => match question.ask() {
                Ok(asked) => with_mesh(config.roots(), |mesh| asked.answer(&translate(mesh))),
                Err(wrong) => misused(&*wrong),
            },
        }
    }
}

fn serve(roots: Roots) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.map_err(run::Error::Runtime).and_then(|tokio| tokio.block_on(run(roots)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

fn validate(paths: Vec<PathBuf>, output: Output) -> ExitCode {
    let (configuration, mistakes) = load(Roots::new(paths));
    let errors = mistakes.iter().filter(|mistake| mistake.is_error()).count();
    let files = configuration.files();
    let printed = match output {
        Output::Human => return summary(files, errors, &mistakes),
        Output::Json => print(&format!("{:#}", as_json(files, &mistakes))),
        Output::Github => print(as_annotations(&mistakes).trim_end()),
    };
    if errors > 0 { ExitCode::FAILURE } else { printed }
}

fn summary(files: usize, errors: usize, mistakes: &[Diagnostic]) -> ExitCode {
    show(mistakes);
    let files = count(files, "file");
    if errors > 0 {
        complain(&format!("{} in {files}", count(errors, "mistake")))
    } else {
        print(&format!("ok: {files}"))
    }
}

fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

fn standing(paths: Vec<PathBuf>, output: standing::Output) -> ExitCode {
    let (configuration, mistakes) = load(Roots::new(paths));
    let (errors, _others): (Vec<_>, Vec<_>) = mistakes.into_iter().partition(Diagnostic::is_fatal);
    show(&errors);
    if !errors.is_empty() {
        return ExitCode::from(USAGE);
    }
    let objects = configuration.status();
    let printed = print(&output.print(&objects));
    if standing::is_good(&objects) { printed } else { ExitCode::FAILURE }
}

/// Prints what `make` makes of the configuration, if that has no mistakes.
fn with_mesh(
    roots: Roots,
    make: impl FnOnce(&Mesh) -> Result<String, Box<dyn std::error::Error>>,
) -> ExitCode {
    let Some(mesh) = flawless_mesh(roots) else { return ExitCode::from(USAGE) };
    match make(&mesh) {
        Ok(text) => print(&text),
        Err(error) => complain(&with_causes(&*error)),
    }
}

/// On stdout, or in place of `file`, which is never there in part.
fn write_bootstrap(paths: Vec<PathBuf>, file: Option<&Path>) -> ExitCode {
    let Some(mesh) = flawless_mesh(Roots::new(paths)) else { return ExitCode::from(USAGE) };
    let text = format!("{:#}", bootstrap(&mesh.proxy.sidecar));
    let Some(file) = file else { return print(&text) };
    let unfinished = file.with_extension("new");
    match fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("cannot write {}: {error}", file.display())),
    }
}

fn planned(paths: Vec<PathBuf>, comparison: &Comparison) -> ExitCode {
    // What is wrong with the other side is its own business, unless nothing can be made of it.
    let other = comparison.other().map(|paths| mesh_of(Roots::new(paths), Diagnostic::is_fatal));
    match other {
        Some(None) => ExitCode::from(USAGE),
        Some(Some(other)) => with_mesh(Roots::new(paths), |mesh| comparison.print(mesh, Some(&other))),
        None => with_mesh(Roots::new(paths), |mesh| comparison.print(mesh, None)),
    }
}

/// The mesh, if the configuration has no mistakes but references that lead nowhere, as `run` has it at a start; they are shown.
fn flawless_mesh(roots: Roots) -> Option<Arc<Mesh>> {
    mesh_of(roots, |_| true)
}

/// The same, where only those mistakes are shown that are `told`.
fn mesh_of(roots: Roots, told: fn(&Diagnostic) -> bool) -> Option<Arc<Mesh>> {
    let has_discovered = roots.has_discovered();
    let (configuration, mistakes) = load(roots);
    if has_discovered {
        return begun_mesh(configuration);
    }
    let flawless = !mistakes.iter().any(Diagnostic::is_fatal);
    show(&mistakes.into_iter().filter(told).collect::<Vec<_>>());
    configuration.resolve().mesh.filter(|_| flawless).map(Arc::new)
}

/// With which `run` would begin: what is wrong in files that others wrote is shown and left out.
fn begun_mesh(mut configuration: Configuration) -> Option<Arc<Mesh>> {
    let settled = configuration.settle();
    let of_files = configuration.diagnostics().cloned();
    show(&of_files.chain(settled.diagnostics).collect::<Vec<_>>());
    settled.mesh.filter(|_| !configuration.is_flawed())
}

fn completions(shell: Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "weft-sidecar", &mut text);
    print(String::from_utf8_lossy(&text).trim_end())
}

fn manual(directory: &Path) -> ExitCode {
    match fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(Cli::command(), directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("cannot write to {}: {error}", directory.display())),
    }
}

fn print_schema(kind: Option<&str>) -> ExitCode {
    match schema(kind) {
        Some(schema) => print(&format!("{schema:#}")),
        None => {
            let names = names();
            let meant = kind.and_then(|kind| nearest(kind, names.iter().copied()));
            let meant = meant.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
            complain(&format!("there is no such kind; there are {}{meant}", names.join(", ")));
            ExitCode::from(USAGE)
        }
    }
}

fn load(roots: Roots) -> (Configuration, Vec<Diagnostic>) {
    let mut configuration = Configuration::new(roots);
    let listing = configuration.roots().list();
    configuration.look(&listing, &BTreeSet::new());
    let mistakes = configuration.mistakes();
    (configuration, mistakes)
}

fn print(text: &str) -> ExitCode {
    match writeln!(io::stdout().lock(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        // As after `| head`: nobody wants to read on.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(&format!("cannot write to stdout: {error}")),
    }
}

fn complain(text: &str) -> ExitCode {
    writeln!(io::stderr().lock(), "weft-sidecar: {text}").ok();
    ExitCode::FAILURE
}

fn misused(error: &dyn std::error::Error) -> ExitCode {
    complain(&with_causes(error));
    ExitCode::from(USAGE)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn log_to_stderr(format: LogFormat, level: LevelFilter) {
    let builder = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        // By default a failed write is reported on stderr, which panics where nobody reads it any more.
        .log_internal_errors(false)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Human => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
