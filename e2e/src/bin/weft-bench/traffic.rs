//! Pods that talk to each other on a node: how fast the one answers the other, and how much goes through.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use weft_e2e::{Pod, Result, cni};

use crate::contestant::Contestant;
use crate::doing;
use crate::progress::Progress;

/// How often the couples take turns with requests in a round: what disturbs the machine for a while disturbs all of them.
const TURNS: usize = 20;
/// How many requests are made in a turn, one after the other's answer.
const REQUESTS: usize = 500;
/// How many are made before, and not counted: of a connection that has just begun.
const FIRST: usize = 50;
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
        for _ in 0..TURNS {
            couples.iter_mut().try_for_each(Couple::ask)?;
            couples.reverse();
        }
        couples.iter_mut().try_for_each(Couple::send)?;
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

    /// Both on one processor: how long another one takes to wake up is no matter of the network, and varies more than that does.
    fn ask(&mut self) -> Result<()> {
        let answers = self.talk(stay_on_the_first, answer, ask)?;
        self.seen.answers.extend(answers);
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        let bulk = self.talk(|| Ok(()), take_in, send)?;
        self.seen.bulks.push(bulk);
        Ok(())
    }

    /// What the client has seen at its end of a connection.
    fn talk<T: Send>(
        &self,
        place: fn() -> io::Result<()>,
        serve: fn(TcpStream) -> io::Result<()>,
        ask: fn(TcpStream) -> io::Result<T>,
    ) -> Result<T> {
        let listener = self.server.run(|| TcpListener::bind((self.address, 0)))?.map_err(doing("listen"))?;
        let to = listener.local_addr().map_err(doing("listen"))?;
        let connect = || -> io::Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let accept = || -> io::Result<TcpStream> {
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let heard = thread::scope(|scope| {
            let server = scope.spawn(|| place().and_then(|()| serve(accept()?)));
            let heard = self.client.run(|| place().and_then(|()| ask(connect()?)));
            let served = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            heard.map(|heard| heard.and_then(|heard| served.map(|()| heard)))
        })?;
        heard.map_err(doing("send from pod to pod"))
    }
}

/// Keeps the calling thread on the first of the processors that it may use.
fn stay_on_the_first() -> io::Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let mut usable = (0..CpuSet::count()).filter(|processor| allowed.is_set(*processor) == Ok(true));
    let mut one = CpuSet::new();
    if let Some(processor) = usable.next() {
        one.set(processor)?;
        sched_setaffinity(this, &one)?;
    }
    Ok(())
}

/// Sends back every byte.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn ask(mut server: TcpStream) -> io::Result<Vec<Duration>> {
    let mut answers = Vec::with_capacity(FIRST + REQUESTS);
    for _ in 0..FIRST + REQUESTS {
        let start = Instant::now();
        server.write_all(&[1])?;
        server.read_exact(&mut [0])?;
        answers.push(start.elapsed());
    }
    Ok(answers.split_off(FIRST))
}

/// Takes in all there is, and says so.
fn take_in(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    while stream.read(&mut buffer)? > 0 {}
    stream.write_all(&[1])
}

/// Until the server says that it has all of it.
fn send(mut server: TcpStream) -> io::Result<Duration> {
    let chunk = vec![1; CHUNK];
    let start = Instant::now();
    (0..BULK / CHUNK).try_for_each(|_| server.write_all(&chunk))?;
    server.shutdown(Shutdown::Write)?;
    server.read_exact(&mut [0])?;
    Ok(start.elapsed())
}
