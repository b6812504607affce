//! Weft end to end, for someone who has just cloned it: pods attached by `weft-cni`, an Envoy that is configured by
//! `weft-sidecar`, and a route file that is edited while requests run.
//!
//! Whatever differs from what it says ends it with the reason and status 1. It runs as the first process of a pid
//! namespace of its own (`scripts/demo`), so that its end, by whatever signal, is the end of all that it started.

#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use weft_e2e::chain;

mod documents;
mod screen;
mod stage;
mod story;
mod traffic;

use screen::Screen;

/// What the main thread waits for.
enum Event {
    Told(Result<(), weft_e2e::Error>),
    Interrupted(Signal),
}

fn main() -> ExitCode {
    let screen = Screen::new();
    let (events, event) = channel();
    let watching = watch_signals(events.clone());
    thread::spawn(move || drop(events.send(Event::Told(story::tell(&screen)))));
    match watching.map(|()| event.recv()) {
        Ok(Ok(Event::Told(Ok(())))) => screen.ends_well(),
        Ok(Ok(Event::Told(Err(error)))) => screen.fails(&chain(&error)),
        Ok(Ok(Event::Interrupted(signal))) => screen.is_interrupted(signal),
        Ok(Err(_ended)) => screen.fails("it has ended early; the lines above say why"),
        Err(error) => screen.fails(&format!("cannot watch for Ctrl-C: {error}")),
    }
}

/// By handlers: those, unlike a mask, end with `exec`, so that programs started here can be told to end.
fn watch_signals(events: Sender<Event>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    drop(entered);
    thread::spawn(move || {
        let signal = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => Signal::SIGINT,
                _ = terminate.recv() => Signal::SIGTERM,
            }
        });
        drop(events.send(Event::Interrupted(signal)));
    });
    Ok(())
}
