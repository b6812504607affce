//! TCP for pods: how long bytes take.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Doing, Result};
use crate::pod::Pod;

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long `size` bytes are on their way to `address`, which is `to`'s: from the first that arrives to the last.
pub fn transfer(from: &Pod, to: &Pod, address: IpAddr, size: usize) -> Result<Duration> {
    let doing = || format!("send {size} bytes from {} to {address}", from.name());
    let listener = to.run(|| TcpListener::bind((address, 0)))?.doing(doing)?;
    let at = listener.local_addr().doing(doing)?;
    let sender = from.run(|| TcpStream::connect_timeout(&at, PATIENCE))?.doing(doing)?;
    let (receiver, _) = listener.accept().doing(doing)?;
    thread::scope(|scope| {
        scope.spawn(move || drop({ sender }.write_all(&vec![0; size])));
        taken(receiver, size).doing(doing)
    })
}

fn taken(mut stream: TcpStream, size: usize) -> io::Result<Duration> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut [0])?;
    let begun = Instant::now();
    stream.read_exact(&mut vec![0; size.saturating_sub(1)])?;
    Ok(begun.elapsed())
}
