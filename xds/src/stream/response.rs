//! What a client is told, in either variant, and how it is written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, Resource as Wrapper, ResourceError, ResourceName,
};
use envoy_types::pb::google::rpc::Status;
use prost::{Message, Name};

use super::Variant;
use crate::snapshot::Failure;
use crate::{Resource, TypeUrl, wire};

/// Pieces from this size on are written from where they are; smaller ones are copied together. A piece of its own costs
/// an HTTP/2 frame and an entry in a list of buffers, which is more than a copy of so little.
const SHARED_FROM: usize = 4096;

/// A response of either variant, as a list of what is in it. Nothing is encoded yet, and nothing copied.
#[derive(Clone, Debug)]
pub struct Response {
    pub(super) variant: Variant,
    pub(super) type_url: TypeUrl,
    pub(super) nonce: u64,
    pub(super) version: String,
    pub(super) entries: Vec<Entry>,
    pub(super) removed: Vec<Arc<str>>,
    pub(super) errors: Vec<ResourceError>,
    /// The client knows times to live.
    pub(super) timed: bool,
}

/// One entry of a response.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Full(Resource),
    /// Renews the time to live, without the content.
    Heartbeat(Resource),
    /// There is no virtual host for this name: said by one without content, which the request that waits for it is
    /// answered with (VHDS, "on demand").
    NoHost(Arc<str>),
}

impl Response {
    /// The type of its resources.
    #[must_use]
    pub fn type_url(&self) -> &TypeUrl {
        &self.type_url
    }

    /// What an answer to it has to name.
    #[must_use]
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// The resources in it, heartbeats left out.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Full(resource) => Some(resource),
            Entry::Heartbeat(_) | Entry::NoHost(_) => None,
        })
    }

    /// Writes the message. Large resources are not copied: the pieces share their memory with the snapshot.
    #[must_use]
    pub fn encode(&self) -> Vec<Bytes> {
        self.pieces(Pieces::default()).0
    }

    /// The same with the five bytes before it that make it a message of gRPC; and its length without them.
    #[must_use]
    pub fn encode_grpc(&self) -> (Vec<Bytes>, usize) {
        let (mut pieces, length) = self.pieces(Pieces::with_room_for_prefix());
        let size = u32::try_from(length - PREFIX).unwrap_or(u32::MAX).to_be_bytes();
        if let Some(first) = pieces.first_mut() {
            let mut head = Vec::from(std::mem::take(first));
            if let Some(slot) = head.get_mut(1..PREFIX) {
                slot.copy_from_slice(&size);
            }
            *first = head.into();
        }
        (pieces, length - PREFIX)
    }

    /// The message as the client decodes it. `None` if it is of the other variant.
    #[must_use]
    pub fn to_delta(&self) -> Option<DeltaDiscoveryResponse> {
        let bytes = self.encode().concat();
        (self.variant == Variant::Incremental)
            .then(|| DeltaDiscoveryResponse::decode(bytes.as_slice()).ok())
            .flatten()
    }

    /// The message as the client decodes it. `None` if it is of the other variant.
    #[must_use]
    pub fn to_sotw(&self) -> Option<DiscoveryResponse> {
        let bytes = self.encode().concat();
        (self.variant == Variant::StateOfTheWorld)
            .then(|| DiscoveryResponse::decode(bytes.as_slice()).ok())
            .flatten()
    }

    fn pieces(&self, mut out: Pieces) -> (Vec<Bytes>, usize) {
        // The first three fields have the same numbers in both variants.
        wire::put(&mut out.open, 1, self.version.as_bytes());
        wire::put(&mut out.open, 4, self.type_url.as_str().as_bytes());
        wire::put(&mut out.open, 5, self.nonce.to_string().as_bytes());
        for name in &self.removed {
            wire::put(&mut out.open, 6, name.as_bytes());
        }
        let errors = if self.variant == Variant::Incremental { 9 } else { 7 };
        for error in &self.errors {
            wire::put(&mut out.open, errors, &error.encode_to_vec());
        }
        for entry in &self.entries {
            match entry {
                Entry::Full(resource) => self.full(&mut out, resource),
                Entry::Heartbeat(resource) => self.wrapped(&mut out, resource, Bytes::new()),
                Entry::NoHost(name) => no_host(&mut out, name),
            }
        }
        out.finish()
    }

    fn full(&self, out: &mut Pieces, resource: &Resource) {
        match (self.variant, resource.ttl()) {
            (Variant::Incremental, None) => out.push(resource.delta_entry().clone()),
            (Variant::Incremental, Some(_)) if self.timed => out.push(resource.delta_entry().clone()),
            (Variant::StateOfTheWorld, Some(_)) if self.timed => {
                self.wrapped(out, resource, resource.sotw_entry());
            }
            (Variant::Incremental, Some(_)) => self.wrapped(out, resource, resource.sotw_entry()),
            (Variant::StateOfTheWorld, _) => out.push(resource.sotw_entry()),
        }
    }

    /// Writes a wrapper, which in the state-of-the-world variant is packed once more.
    fn wrapped(&self, out: &mut Pieces, resource: &Resource, content: Bytes) {
        let ttl: Option<Duration> = resource.ttl().filter(|_| self.timed);
        let head = resource.wrapper_head(ttl);
        let length = head.len() + content.len();
        if self.variant == Variant::StateOfTheWorld {
            let url = Wrapper::type_url();
            wire::open(&mut out.open, 2, wire::put_len(url.len()) + wire::field_len(length));
            wire::put(&mut out.open, 1, url.as_bytes());
        }
        wire::open(&mut out.open, 2, length);
        out.open.extend_from_slice(&head);
        out.push(content);
    }
}

pub(super) fn error(name: &str, failure: Option<&Failure>) -> ResourceError {
    const NOT_FOUND: i32 = 5;
    let status = match failure {
        Some(Failure { code, message }) => {
            Status { code: *code, message: message.to_string(), ..Default::default() }
        }
        None => Status { code: NOT_FOUND, message: "it does not exist".into(), ..Default::default() },
    };
    let resource_name = Some(ResourceName { name: name.into(), ..Default::default() });
    ResourceError { resource_name, error_detail: Some(status) }
}

fn no_host(out: &mut Pieces, name: &str) {
    let wrapper = Wrapper { name: name.into(), aliases: vec![name.into()], ..Default::default() };
    wire::put(&mut out.open, 2, &wrapper.encode_to_vec());
}

/// A flag that says "not compressed", and the length.
const PREFIX: usize = 5;

/// What has been written: whole pieces, and one that is being written to.
#[derive(Default)]
struct Pieces {
    whole: Vec<Bytes>,
    open: Vec<u8>,
    length: usize,
}

impl Pieces {
    fn with_room_for_prefix() -> Self {
        Self { open: vec![0; PREFIX], ..Self::default() }
    }

    fn push(&mut self, piece: Bytes) {
        if piece.len() < SHARED_FROM {
            self.open.extend_from_slice(&piece);
        } else {
            self.close();
            self.length += piece.len();
            self.whole.push(piece);
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.length += self.open.len();
            self.whole.push(std::mem::take(&mut self.open).into());
        }
    }

    fn finish(mut self) -> (Vec<Bytes>, usize) {
        self.close();
        (self.whole, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(variant: Variant, timed: bool, entries: Vec<Entry>) -> Response {
        Response {
            variant,
            type_url: TypeUrl::RUNTIME,
            nonce: 7,
            version: "v".into(),
            entries,
            removed: if variant == Variant::Incremental { vec!["gone".into()] } else { Vec::new() },
            errors: Vec::new(),
            timed,
        }
    }

    fn large() -> Resource {
        Resource::from_bytes(TypeUrl::RUNTIME, "large", vec![7; 2 * SHARED_FROM].into())
    }

    #[test]
    fn what_is_large_is_not_copied() {
        for variant in [Variant::Incremental, Variant::StateOfTheWorld] {
            let large = large();
            let body = large.body().as_ptr_range();
            let (pieces, length) = response(variant, false, vec![Entry::Full(large)]).encode_grpc();
            assert!(pieces.iter().any(|piece| piece.as_ptr_range().end == body.end), "{variant:?}");
            assert_eq!(pieces.concat().len(), length + PREFIX);
            assert_eq!(pieces.concat()[1..PREFIX], u32::try_from(length).unwrap().to_be_bytes());
        }
    }

    #[test]
    fn a_client_decodes_what_was_meant() {
        let (small, large) = (Resource::from_bytes(TypeUrl::RUNTIME, "small", "x".into()), large());
        let timed = small.clone().with_ttl(Duration::from_millis(1500)).with_aliases(["also"]);
        let entries = || [&small, &large, &timed].map(|one| Entry::Full(one.clone())).to_vec();

        let delta = response(Variant::Incremental, true, entries()).to_delta().unwrap();
        assert_eq!((delta.system_version_info.as_str(), delta.nonce.as_str()), ("v", "7"));
        assert_eq!(
            (delta.type_url.as_str(), &*delta.removed_resources),
            (TypeUrl::RUNTIME.as_str(), &["gone".to_owned()][..])
        );
        let bodies: Vec<_> = delta.resources.iter().map(|one| one.resource.clone().unwrap().value).collect();
        assert_eq!(bodies, [small.body(), large.body(), small.body()]);
        let wrapper = delta.resources.last().unwrap();
        assert_eq!((wrapper.name.as_str(), &*wrapper.aliases), ("small", &["also".to_owned()][..]));
        assert_eq!(wrapper.version, small.version().to_string());
        assert_eq!(wrapper.ttl.map(|ttl| (ttl.seconds, ttl.nanos)), Some((1, 500_000_000)));

        let without = response(Variant::Incremental, false, entries()).to_delta().unwrap();
        assert_eq!(without.resources.last().unwrap().ttl, None);
        assert_eq!(without.resources.last().unwrap().resource, wrapper.resource);

        let sotw = response(Variant::StateOfTheWorld, true, entries()).to_sotw().unwrap();
        let (last, plain) = sotw.resources.split_last().unwrap();
        assert!(plain.iter().all(|any| any.type_url == TypeUrl::RUNTIME.as_str()));
        assert_eq!(last.type_url, Wrapper::type_url());
        assert_eq!(&Wrapper::decode(last.value.as_slice()).unwrap(), wrapper);

        let sotw = response(Variant::StateOfTheWorld, false, entries()).to_sotw().unwrap();
        assert_eq!(sotw.resources.last().unwrap().value, small.body());
    }

    #[test]
    fn a_heartbeat_has_everything_but_the_content() {
        let timed = large().with_ttl(Duration::from_secs(9));
        let expected = Wrapper {
            name: "large".into(),
            version: timed.version().to_string(),
            ttl: Some(envoy_types::pb::google::protobuf::Duration { seconds: 9, nanos: 0 }),
            ..Default::default()
        };
        let beat = || vec![Entry::Heartbeat(timed.clone())];
        let delta = response(Variant::Incremental, true, beat()).to_delta().unwrap();
        assert_eq!(delta.resources.as_slice(), std::slice::from_ref(&expected));
        let sotw = response(Variant::StateOfTheWorld, true, beat()).to_sotw().unwrap();
        assert_eq!(Wrapper::decode(sotw.resources[0].value.as_slice()).unwrap(), expected);
    }
}
