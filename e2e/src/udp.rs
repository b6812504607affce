//! UDP for pods: a server that says who it is, and a question to it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::error::{Doing, Result};
use crate::pod::Pod;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server in a pod that answers every datagram with its name. It ends when dropped.
#[derive(Debug)]
pub struct UdpServer {
    socket: UdpSocket,
    port: u16,
    thread: Option<thread::JoinHandle<()>>,
}

impl UdpServer {
    /// Listens on `port` of the pod, IPv4 and IPv6.
    pub fn start(pod: &Pod, port: u16, name: &str) -> Result<Self> {
        let doing = || format!("listen on UDP port {port} in {}", pod.name());
        let socket = pod.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))?.doing(doing)?;
        let (listener, name) = (socket.try_clone().doing(doing)?, name.to_owned());
        let thread = thread::spawn(move || answer(&listener, &name));
        Ok(Self { socket, port, thread: Some(thread) })
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        // An empty datagram is the end of it.
        let own = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        if self.socket.send_to(&[], (own, self.port)).is_ok() {
            drop(self.thread.take().map(thread::JoinHandle::join));
        }
    }
}

fn answer(socket: &UdpSocket, name: &str) {
    let mut question = [0; 64];
    while let Ok((1.., from)) = socket.recv_from(&mut question) {
        // Whoever asked hears nothing then, and says so.
        drop(socket.send_to(name.as_bytes(), from));
    }
}

/// Who answers a datagram from the pod to `to`.
pub fn ask(pod: &Pod, to: SocketAddr) -> Result<String> {
    let doing = || format!("hear from {to} over UDP");
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = pod.run(|| UdpSocket::bind(any))?.doing(doing)?;
    socket.set_read_timeout(Some(PATIENCE)).doing(doing)?;
    // Only what comes from there counts as an answer, and nobody at home shows at once.
    socket.connect(to).doing(doing)?;
    socket.send(b"who").doing(doing)?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer).doing(doing)?;
    Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned())
}
