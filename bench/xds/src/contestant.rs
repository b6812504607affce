//! Who takes part.

/// A server, in one of the variants of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contestant {
    WeftIncremental,
    WeftSotw,
    RustControlPlane,
    NebucloudIncremental,
    NebucloudSotw,
}

impl Contestant {
    pub const ALL: [Self; 5] = [
        Self::WeftIncremental,
        Self::WeftSotw,
        Self::RustControlPlane,
        Self::NebucloudIncremental,
        Self::NebucloudSotw,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::WeftIncremental => "weft-xds, incremental",
            Self::WeftSotw => "weft-xds, state of the world",
            Self::RustControlPlane => "rust-control-plane, state of the world",
            Self::NebucloudIncremental => "nebucloud-xds, incremental",
            Self::NebucloudSotw => "nebucloud-xds, state of the world",
        }
    }

    pub fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.name() == name);
        found.ok_or_else(|| format!("there is no contestant {name:?}"))
    }

    pub fn is_incremental(self) -> bool {
        matches!(self, Self::WeftIncremental | Self::NebucloudIncremental)
    }

    /// Whether a change reaches a client without a further request of it. The streams of nebucloud-xds 0.1.0 answer
    /// requests, and watch no snapshot.
    pub fn pushes(self) -> bool {
        !matches!(self, Self::NebucloudIncremental | Self::NebucloudSotw)
    }
}
