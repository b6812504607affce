//! Asking the container runtime for its sandboxes, as kubelet does: CRI over a Unix socket.
//!
//! Of the protocol one call is used, and of its answer one field: the messages here have the numbers of
//! `runtime.v1` (kubernetes/cri-api, `pkg/apis/runtime/v1/api.proto`) and leave out the rest, which protobuf skips.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

/// Where runtimes listen, in the order in which kubelet's own tools look.
pub(crate) const SOCKETS: [&str; 3] =
    ["/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/k3s/containerd/containerd.sock"];

/// A runtime that takes longer has trouble of its own.
const PATIENCE: Duration = Duration::from_secs(10);
/// A sandbox takes some hundred bytes, and more with its annotations; tonic's own limit of 4 MiB is too near.
const MOST: usize = 64 << 20;

/// The runtime did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The socket's path cannot be written as an address.
    #[error("{} cannot be an address", socket.display())]
    Address { socket: PathBuf, source: tonic::transport::Error },
    /// Nobody is there.
    #[error("cannot connect to {}", socket.display())]
    Connect { socket: PathBuf, source: tonic::transport::Error },
    /// It was refused.
    #[error("ListPodSandbox at {} was refused: {}", socket.display(), status.message())]
    Refused { socket: PathBuf, status: Box<tonic::Status> },
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodSandboxRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<PodSandbox>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSandbox {
    #[prost(string, tag = "1")]
    id: String,
}

/// The ids of all sandboxes, running or not. A connection is made for each question: there is one a minute, and runtimes restart.
pub(crate) async fn sandboxes(socket: &Path) -> Result<HashSet<String>, Error> {
    let at = || socket.to_owned();
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
    let endpoint = endpoint.map_err(|source| Error::Address { socket: at(), source })?;
    let channel = endpoint.timeout(PATIENCE).connect_timeout(PATIENCE).connect().await;
    let channel = channel.map_err(|source| Error::Connect { socket: at(), source })?;
    let mut client = Grpc::new(channel).max_decoding_message_size(MOST);
    let refused = |status| Error::Refused { socket: at(), status: Box::new(status) };
    let unready = |error: tonic::transport::Error| refused(tonic::Status::unavailable(error.to_string()));
    client.ready().await.map_err(unready)?;
    let call = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListPodSandbox");
    let codec = ProstCodec::<ListPodSandboxRequest, ListPodSandboxResponse>::default();
    let answer = client.unary(tonic::Request::new(ListPodSandboxRequest {}), call, codec).await;
    let answer = answer.map_err(refused)?.into_inner();
    Ok(answer.items.into_iter().map(|sandbox| sandbox.id).collect())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn what_is_not_asked_for_is_skipped() {
        // id "abc"; metadata (2), state (3) and a label (5), as a runtime sends them.
        let sandbox = b"\x0a\x03abc\x12\x02\x0a\x00\x18\x01\x2a\x06\x0a\x01k\x12\x01v";
        let mut answer = vec![0x0a, u8::try_from(sandbox.len()).unwrap()];
        answer.extend_from_slice(sandbox);
        let read = ListPodSandboxResponse::decode(&*answer).unwrap();
        assert_eq!(read.items, [PodSandbox { id: "abc".into() }]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_runtime_that_is_not_there_is_an_error_that_names_the_socket() {
        let error = sandboxes(Path::new("/nowhere/containerd.sock")).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot connect to /nowhere/containerd.sock");
    }
}
