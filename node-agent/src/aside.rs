//! What would keep the agent's one thread waiting: files, locks and the kernel's. It is done on others, so that health and status
//! are answered throughout.

use std::io;
use std::panic::resume_unwind;

use tokio::process::{Child, Command};
use tokio::sync::RwLock;
use tokio::task::spawn_blocking;

/// Whoever is being made inherits what is open until it executes its own program, also a plugin that is just being written, which for as
/// long nobody could execute (`ETXTBSY`; libcni gives up after six tries). So no child is made while one is written.
static PROGRAMS: RwLock<()> = RwLock::const_new(());

/// Does `work`, while everything else goes on.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The agent is ending.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

/// The same for work that writes programs.
pub(crate) async fn write_programs<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let _no_child = PROGRAMS.write().await;
    aside(work).await
}

/// Makes a child, which has begun with its own program when this returns.
pub(crate) async fn spawn(command: &mut Command) -> io::Result<Child> {
    let _no_writer = PROGRAMS.read().await;
    command.spawn()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions, Permissions};
    use std::io::Write;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    use std::path::Path;

    use super::*;

    fn write_and_rename(path: &Path) {
        let new = path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&new).unwrap();
        file.write_all(&fs::read("/bin/true").unwrap()).unwrap();
        file.set_permissions(Permissions::from_mode(0o755)).unwrap();
        drop(file);
        fs::rename(new, path).unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_program_that_is_written_again_and_again_can_be_executed_at_any_moment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        let target = path.clone();
        write_programs(move || write_and_rename(&target)).await;
        let target = path.clone();
        let writer = async {
            for _ in 0..60 {
                let target = target.clone();
                write_programs(move || write_and_rename(&target)).await;
            }
        };
        let runner = async {
            for _ in 0..60 {
                assert!(spawn(&mut Command::new(&path)).await.unwrap().wait().await.unwrap().success());
            }
        };
        tokio::join!(writer, runner);
    }
}
