//! Running a program to its end, or to the end of its time. Weft executes nothing else, and nothing in another place.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// More than any result; who prints more is not read on.
const STDOUT_LIMIT: u64 = 1 << 20;

/// How often, and after what pauses, a program is tried again that is being written at this moment (`ETXTBSY`). There is
/// no event to wait for.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// A program that has ended.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
}

/// A program could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be started.
    #[error("it cannot be started")]
    Start(#[source] io::Error),
    /// It could not be watched or read.
    #[error("it cannot be watched")]
    Watch(#[source] io::Error),
    /// It took too long, and was killed.
    #[error("it did not end within {} ms and was killed", .0.as_millis())]
    TimedOut(Duration),
}

/// What the threads around a program have to tell.
enum Event {
    Ended,
    Said(io::Result<Vec<u8>>),
}

/// Runs `command` with `stdin` for no longer than `limit`. Its standard error is that of this process.
///
/// It leads a process group of its own, so that what it has started dies with it when its time is over.
pub(super) fn run(command: &mut Command, stdin: &[u8], limit: Duration) -> Result<Finished, Failure> {
    let deadline = Instant::now() + limit;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut running = Running(Some(start(command, deadline).map_err(Failure::Start)?));
    let events = running.watch(stdin.to_vec()).map_err(Failure::Watch)?;
    let (mut ended, mut said) = (false, None);
    while !ended || said.is_none() {
        let left = deadline.saturating_duration_since(Instant::now());
        match events.recv_timeout(left).map_err(|_late| Failure::TimedOut(limit))? {
            Event::Ended => ended = true,
            Event::Said(stdout) => said = Some(stdout),
        }
    }
    let stdout = said.transpose().map_err(Failure::Watch)?.unwrap_or_default();
    Ok(Finished { status: running.reap().map_err(Failure::Watch)?, stdout })
}

fn start(command: &mut Command, deadline: Instant) -> io::Result<Child> {
    let mut tries = 1;
    loop {
        match command.spawn() {
            Err(error)
                if error.raw_os_error() == Some(Errno::ETXTBSY as i32)
                    && tries < BUSY_TRIES
                    && Instant::now() + BUSY_PAUSE < deadline =>
            {
                tries += 1;
                thread::sleep(BUSY_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// A child that has not been waited for. It is killed when this is dropped before it was reaped.
struct Running(Option<Child>);

impl Running {
    /// Starts the threads that feed, read and wait. None of them outlives the program by more than it takes to see
    /// that it is gone, and the process does not wait for any.
    fn watch(&mut self, stdin: Vec<u8>) -> io::Result<mpsc::Receiver<Event>> {
        let (tell, told) = mpsc::channel();
        let Some(child) = &mut self.0 else { return Ok(told) };
        let pid = Pid::from_raw(child.id() as i32);
        if let Some(pipe) = child.stdin.take() {
            spawn(move || feed(pipe, &stdin))?;
        }
        if let Some(pipe) = child.stdout.take() {
            let tell = tell.clone();
            spawn(move || read(pipe, &tell))?;
        }
        spawn(move || wait(pid, &tell))?;
        Ok(told)
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        match self.0.take() {
            Some(mut child) => child.wait(),
            None => Err(io::Error::other("it was waited for already")),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        // Not reaped yet, so the number is still its own, and so is the group's.
        let killed = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        if killed.is_ok() {
            drop(child.wait());
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().spawn(work).map(drop)
}

/// A program need not read what it is told.
fn feed(mut pipe: ChildStdin, stdin: &[u8]) {
    drop(pipe.write_all(stdin));
}

fn read(pipe: ChildStdout, tell: &Sender<Event>) {
    let mut stdout = Vec::new();
    let read = pipe.take(STDOUT_LIMIT).read_to_end(&mut stdout);
    // Nobody listens any more once the time is over.
    drop(tell.send(Event::Said(read.map(|_length| stdout))));
}

/// Waits without reaping, so that the number stays the child's until it is killed or reaped.
fn wait(pid: Pid, tell: &Sender<Event>) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(pid), flags) == Err(Errno::EINTR) {}
    drop(tell.send(Event::Ended));
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn shell(script: &str, stdin: &[u8], limit: Duration) -> Result<Finished, Failure> {
        run(Command::new("/bin/sh").args(["-c", script]), stdin, limit)
    }

    #[test]
    fn a_program_gets_its_input_and_is_read_to_the_end_whatever_their_sizes() {
        let much = vec![b'x'; 300_000];
        let finished = shell("cat", &much, LONG).unwrap();
        assert!(finished.status.success());
        assert_eq!(finished.stdout, much);
        assert_eq!(shell("exec true", &much, LONG).unwrap().stdout, b"", "it need not read its input");
    }

    #[test]
    fn the_status_is_the_programs() {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(shell("exit 3", b"", LONG).unwrap().status.code(), Some(3));
        assert_eq!(shell("kill -9 $$", b"", LONG).unwrap().status.signal(), Some(9));
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = fs::File::open;
        let script = format!("sleep 1000 > {} & wait", fifo.display());
        let opened = thread::spawn({
            let fifo = fifo.clone();
            move || {
                let mut text = String::new();
                // The end comes when the last writer is gone.
                reader(fifo).unwrap().read_to_string(&mut text).unwrap();
            }
        });
        let late = shell(&script, b"", Duration::from_millis(500));
        assert!(matches!(late, Err(Failure::TimedOut(_))), "{late:?}");
        opened.join().unwrap();
    }

    #[test]
    fn who_closes_its_output_and_stays_hangs_too() {
        let late = shell("exec >&-; sleep 1000", b"", Duration::from_millis(100));
        assert!(matches!(late, Err(Failure::TimedOut(_))), "{late:?}");
    }

    #[test]
    fn endless_output_is_not_read_on() {
        let finished = shell("exec cat /dev/zero", b"", LONG).unwrap();
        assert!(!finished.status.success());
        assert_eq!(finished.stdout.len() as u64, STDOUT_LIMIT);
    }

    #[test]
    fn a_program_that_is_being_written_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plugin");
        fs::copy("/bin/true", &file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let writer = OpenOptions::new().append(true).open(&file).unwrap();
        let busy = run(&mut Command::new(&file), b"", LONG);
        assert!(
            matches!(&busy, Err(Failure::Start(e)) if e.raw_os_error() == Some(Errno::ETXTBSY as i32)),
            "{busy:?}"
        );
        drop(writer);
        assert!(run(&mut Command::new(&file), b"", LONG).unwrap().status.success());
    }
}
