//! From configuration files to Envoy: reader, model, translation, publication
//!
//! ```text
//! files ─▶ documents (spans kept) ─▶ mesh (references resolved) ─▶ resources (pure, with provenance) ─▶ Envoy
//!  read        model::object            model::resolve                translate                      run
//!   ▲ watch                                                                                            │
//!   └──────────────── configuration: the last good state of every file ◀── NACK: file:line ────────────┘
//! ```
#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod cli;
pub mod configuration;
pub mod descriptors;
pub mod diagnostic;
pub mod encoding;
pub mod explain;
pub mod graph;
pub mod model;
pub mod plan;
pub mod read;
pub mod run;
pub mod schema;
pub mod translate;
pub mod watch;
