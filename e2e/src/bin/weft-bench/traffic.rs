//! Pods that talk to each other on a node: how fast the one answers the other, and how much goes through.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use weft_e2e::{Pod, Result, cni};

use crate::contestant::Contestant;
use crate::doing;
use crate::progress::Progress;

/// How many requests are made in a round, one after the other's answer.
const REQUESTS: usize = 2_000;
/// How much is sent in a round.
const BULK: usize = 1 << 30;
const CHUNK: usize = 128 << 10;
/// Nobody waits longer for the other.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the pods of a contestant saw.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) name: String,
    pub(crate) answers: Vec<Duration>,
    /// What each gigabyte took.
    pub(crate) bulks: Vec<Duration>,
}

/// Two pods of a contestant. Which backend the reference has makes no difference to them.
struct Couple {
    client: Pod,
    server: Pod,
    address: IpAddr,
    seen: Traffic,
}

pub(crate) fn measure(
    references: &[Contestant],
    weft: &Contestant,
    rounds: u16,
    progress: &Progress,
) -> Result<Vec<Traffic>> {
    let all = references.iter().take(1).chain([weft]);
    let mut couples = all.map(Couple::of).collect::<Result<Vec<_>>>()?;
    for round in 0..rounds {
        progress.show("traffic between pods", round.into(), rounds.into());
        couples.iter_mut().try_for_each(Couple::talk)?;
        couples.reverse();
    }
    couples.sort_by_key(|couple| couple.seen.name == weft.name);
    Ok(couples.into_iter().map(|couple| couple.seen).collect())
}

impl Couple {
    fn of(contestant: &Contestant) -> Result<Self> {
        let pod = |name| Pod::create(contestant.node(), name);
        let (client, server) = (pod("client")?, pod("server")?);
        contestant.add_plainly(&client)?;
        let address = cni::address(&contestant.add_plainly(&server)?, 0)?;
        let seen = Traffic { name: contestant.name.clone(), ..Traffic::default() };
        Ok(Self { client, server, address, seen })
    }

    fn talk(&mut self) -> Result<()> {
        let listener = self.server.run(|| TcpListener::bind((self.address, 0)))?.map_err(doing("listen"))?;
        let to = listener.local_addr().map_err(doing("listen"))?;
        let connect = || -> io::Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let seen = &mut self.seen;
        let heard = thread::scope(|scope| {
            let server = scope.spawn(|| serve(&listener));
            let heard = self.client.run(|| {
                ask(connect()?, &mut seen.answers)?;
                send(connect()?, &mut seen.bulks)
            });
            let served = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            heard.map(|heard| heard.and(served))
        })?;
        heard.map_err(doing("send from pod to pod"))
    }
}

/// Answers every byte of the first connection, and takes in all of the second.
fn serve(listener: &TcpListener) -> io::Result<()> {
    let (mut asking, _) = listener.accept()?;
    asking.set_nodelay(true)?;
    let mut byte = [0];
    while asking.read(&mut byte)? == 1 {
        asking.write_all(&byte)?;
    }
    let (mut sending, _) = listener.accept()?;
    let mut buffer = vec![0; CHUNK];
    while sending.read(&mut buffer)? > 0 {}
    sending.write_all(&byte)
}

fn ask(mut server: TcpStream, answers: &mut Vec<Duration>) -> io::Result<()> {
    for _ in 0..REQUESTS {
        let start = Instant::now();
        server.write_all(&[1])?;
        server.read_exact(&mut [0])?;
        answers.push(start.elapsed());
    }
    Ok(())
}

/// Until the server says that it has all of it.
fn send(mut server: TcpStream, bulks: &mut Vec<Duration>) -> io::Result<()> {
    let chunk = vec![1; CHUNK];
    let start = Instant::now();
    (0..BULK / CHUNK).try_for_each(|_| server.write_all(&chunk))?;
    server.shutdown(Shutdown::Write)?;
    server.read_exact(&mut [0])?;
    bulks.push(start.elapsed());
    Ok(())
}
