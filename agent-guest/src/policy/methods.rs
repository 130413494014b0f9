//! Methods by their names: the first gate of every call.

use super::pattern::matches;

/// What [`Profile::Observe`](super::Profile::Observe) lets be called: what changes nothing, and gives nobody the content of a
/// file, the words of a command or the journal, any of which may hold a secret.
pub(super) const OBSERVE: [&str; 17] = [
    "grpc.health.v1.Health/*",
    "grpc.reflection.v1.ServerReflection/*",
    "grpc.reflection.v1alpha.ServerReflection/*",
    "vbridge.guest.v1.Events/*",
    "vbridge.guest.v1.Files/List",
    "vbridge.guest.v1.Files/Stat",
    "vbridge.guest.v1.Hardware/List*",
    "vbridge.guest.v1.Metrics/*",
    "vbridge.guest.v1.Network/List*",
    "vbridge.guest.v1.Services/Get",
    "vbridge.guest.v1.Services/List",
    "vbridge.guest.v1.Storage/FreezeStatus",
    "vbridge.guest.v1.Storage/List*",
    "vbridge.guest.v1.System/Get*",
    "vbridge.guest.v1.System/ListUsers",
    "vbridge.guest.v1.System/Ping",
    "vbridge.guest.v1.Time/Get*",
];

/// Allows or refuses methods by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(super) name: String,
    pub(super) allow: bool,
    methods: Vec<String>,
}

impl Rule {
    /// Lets these methods be called: `package.Service/Method`, in which `*` is anything.
    pub fn allow(
        name: impl Into<String>,
        methods: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            name: name.into(),
            allow: true,
            methods: methods.into_iter().map(Into::into).collect(),
        }
    }

    /// Refuses these methods: `package.Service/Method`, in which `*` is anything.
    pub fn deny(
        name: impl Into<String>,
        methods: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            allow: false,
            ..Self::allow(name, methods)
        }
    }

    pub(super) fn names(&self, method: &str) -> bool {
        names(&self.methods, method)
    }
}

/// Whether one of these patterns is this method.
pub(super) fn names(patterns: &[impl AsRef<str>], method: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| matches(pattern.as_ref(), method))
}
