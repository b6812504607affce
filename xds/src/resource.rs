//! One resource: its name, its version and its bytes.

mod references;
mod version;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::references::Reference;
pub use self::version::Version;
use crate::{TypeUrl, canonical, wire};

/// A resource as clients receive it: encoded once, shared by every snapshot and every stream that holds it.
///
/// A clone copies one pointer. It can say more than its content: how long it is valid ([`with_ttl`](Self::with_ttl)),
/// under which other names it is found ([`with_aliases`](Self::with_aliases)), and what must be there for it to work
/// ([`refers_to`](Self::refers_to)).
///
/// ```
/// use envoy_types::pb::envoy::config::cluster::v3::Cluster;
/// use weft_xds::{Resource, TypeUrl, Version};
///
/// let web = Resource::encode("web", &Cluster { name: "web".into(), ..Default::default() });
/// assert_eq!((web.type_url(), web.name()), (&TypeUrl::CLUSTER, "web"));
/// assert_eq!(web.version(), Version::of(&web.body()));
/// ```
#[derive(Clone)]
pub struct Resource(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    type_url: TypeUrl,
    name: Arc<str>,
    version: Version,
    ttl: Option<Duration>,
    aliases: Box<[Arc<str>]>,
    references: Box<[Reference]>,
    /// One entry of an incremental response, and at its end one of a state-of-the-world response: both messages
    /// keep their resources in field 2, and so does the wrapper that only the former has.
    ///
    /// ```text
    /// ┌ field 2: Resource ─ name ─ version ─ aliases ─ ttl ─┬ field 2: Any ─ type_url ─┬ value ┐
    /// 0                                                     entry                      body    end
    /// ```
    frame: Bytes,
    entry: usize,
    body: usize,
}

impl Resource {
    /// Encodes `message` under `name`.
    ///
    /// Equal messages get equal bytes, and so equal versions, even where the message holds maps: see
    /// [`canonical`](crate::canonical) for what that covers. What well-known messages refer to is found in them:
    /// see [`Reference`].
    #[must_use]
    pub fn encode<M: prost::Message + prost::Name + 'static>(name: impl Into<Arc<str>>, message: &M) -> Self {
        let references = references::of(message as &dyn Any);
        let type_url = TypeUrl::of_message::<M>();
        let body = canonical::encode_as(type_url.message_name(), message);
        Self::new(type_url, name.into(), body.into(), references.into())
    }

    /// A resource whose message is encoded already. The version is that of the bytes as they are. What it refers
    /// to has to be [said](Self::refers_to).
    #[must_use]
    pub fn from_bytes(type_url: TypeUrl, name: impl Into<Arc<str>>, body: Bytes) -> Self {
        Self::new(type_url, name.into(), body, Box::default())
    }

    fn new(type_url: TypeUrl, name: Arc<str>, body: Bytes, references: Box<[Reference]>) -> Self {
        let version = Version::of(&body);
        let mut inner = Inner {
            type_url,
            name,
            version,
            ttl: None,
            aliases: Box::default(),
            references,
            frame: body,
            entry: 0,
            body: 0,
        };
        inner.frame();
        Self(Arc::new(inner))
    }

    /// The same resource, for this long: a client that hears nothing of it for `ttl` drops it. Streams renew it in
    /// time, without its content ([TTL][ttl]), towards clients that know about it.
    ///
    /// What an Envoy does when it expires depends on the type: a cluster is deleted, routes are kept (measured with
    /// 1.40).
    ///
    /// [ttl]: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ttl
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        self.changed(|inner| inner.ttl = Some(ttl))
    }

    /// The same resource, also found under these names. Only virtual hosts on demand (VHDS) use that.
    #[must_use]
    pub fn with_aliases<N: Into<Arc<str>>>(self, aliases: impl IntoIterator<Item = N>) -> Self {
        let aliases = aliases.into_iter().map(Into::into).collect();
        self.changed(|inner| inner.aliases = aliases)
    }

    /// The same resource, which needs one more.
    #[must_use]
    pub fn refers_to(self, reference: Reference) -> Self {
        let references = self.0.references.iter().cloned().chain([reference]).collect();
        self.changed(|inner| inner.references = references)
    }

    /// The same resource, which needs these and nothing else.
    #[must_use]
    pub fn referring_to(self, references: impl IntoIterator<Item = Reference>) -> Self {
        let references = references.into_iter().collect();
        self.changed(|inner| inner.references = references)
    }

    fn changed(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        let body = inner.frame.slice(inner.body..);
        change(&mut inner);
        (inner.frame, inner.entry, inner.body) = (body, 0, 0);
        inner.frame();
        Self(Arc::new(inner))
    }

    /// The type of its message.
    #[must_use]
    pub fn type_url(&self) -> &TypeUrl {
        &self.0.type_url
    }

    /// The name clients subscribe to.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The name, to be shared.
    #[must_use]
    pub fn shared_name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// The version: equal exactly when the content is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// How long it is valid without being renewed. `None`: for ever.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        self.0.ttl
    }

    /// The other names it is found under.
    #[must_use]
    pub fn aliases(&self) -> &[Arc<str>] {
        &self.0.aliases
    }

    /// What must be there for it to work.
    #[must_use]
    pub fn references(&self) -> &[Reference] {
        &self.0.references
    }

    /// The name under which a cluster's endpoints are asked for, if it takes them from here.
    #[must_use]
    pub fn eds_name(&self) -> Option<&str> {
        self.0.references.iter().find(|one| one.type_url == TypeUrl::ENDPOINT).map(|one| &*one.name)
    }

    /// The encoded message, shared.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.0.frame.slice(self.0.body..)
    }

    /// An entry of the field `resources` of an incremental response, tag and length included.
    pub(crate) fn delta_entry(&self) -> &Bytes {
        &self.0.frame
    }

    /// An entry of the field `resources` of a state-of-the-world response, tag and length included; and the field
    /// `resource` of the wrapper `Resource`.
    pub(crate) fn sotw_entry(&self) -> Bytes {
        self.0.frame.slice(self.0.entry..)
    }

    /// What stands before [`sotw_entry`](Self::sotw_entry) in a wrapper `Resource`.
    pub(crate) fn wrapper_head(&self, ttl: Option<Duration>) -> Vec<u8> {
        let mut head = Vec::with_capacity(self.0.wrapper_head_len(ttl));
        self.0.put_wrapper_head(&mut head, ttl);
        head
    }
}

impl Inner {
    fn put_wrapper_head(&self, out: &mut Vec<u8>, ttl: Option<Duration>) {
        wire::put(out, 3, self.name.as_bytes());
        wire::put(out, 1, &self.version.digits());
        for alias in &self.aliases {
            wire::put(out, 4, alias.as_bytes());
        }
        if let Some(ttl) = ttl {
            let ttl = duration(ttl);
            wire::open(out, 6, ttl.len());
            out.extend_from_slice(&ttl);
        }
    }

    /// How long [`put_wrapper_head`](Self::put_wrapper_head) is.
    fn wrapper_head_len(&self, ttl: Option<Duration>) -> usize {
        let aliases: usize = self.aliases.iter().map(|alias| wire::put_len(alias.len())).sum();
        let ttl = ttl.map_or(0, |ttl| wire::field_len(duration(ttl).len()));
        wire::put_len(self.name.len()) + wire::put_len(self.version.digits().len()) + aliases + ttl
    }

    /// Puts `frame`, which is the bare body so far, into its frame.
    fn frame(&mut self) {
        let body = std::mem::take(&mut self.frame);
        let url = self.type_url.as_str();
        let any = wire::put_len(url.len()) + wire::put_len(body.len());
        let length = self.wrapper_head_len(self.ttl) + wire::field_len(any);
        let mut frame = Vec::with_capacity(wire::field_len(length));
        wire::open(&mut frame, 2, length);
        self.put_wrapper_head(&mut frame, self.ttl);
        self.entry = frame.len();
        wire::open(&mut frame, 2, any);
        wire::put(&mut frame, 1, url.as_bytes());
        wire::put(&mut frame, 2, &body);
        self.body = frame.len() - body.len();
        self.frame = frame.into();
    }
}

/// `google.protobuf.Duration`.
fn duration(ttl: Duration) -> Vec<u8> {
    let nanos = i32::try_from(ttl.subsec_nanos()).unwrap_or_default();
    let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    prost::Message::encode_to_vec(&envoy_types::pb::google::protobuf::Duration { seconds, nanos })
}

/// Equal in everything a client or a snapshot can notice.
impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        let same =
            |one: &Inner, other: &Inner| one.frame == other.frame && one.references == other.references;
        Arc::ptr_eq(&self.0, &other.0) || same(&self.0, &other.0)
    }
}

impl Eq for Resource {}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}@{}", self.0.type_url, self.0.name, self.0.version)
    }
}
