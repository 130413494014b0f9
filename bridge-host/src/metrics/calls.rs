//! How many calls there were, how they ended, and how long they took.
//!
//! By guest and status the count is kept with the guest, and goes with it. By method and status there is a histogram of
//! times, for the methods that this bridge knows and one label for all others: a client makes up as many as it likes.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    metrics::{family::Family, histogram::Histogram},
    registry::Registry,
};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;

use crate::guest::Guest;

/// The label of methods that are not known.
const OTHER: &str = "other";

/// gRPC's statuses as they are written in its documents, by their numbers.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Upper bounds of the times' buckets, in seconds: from a call on the same machine to one that transfers much.
const BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0,
];

/// One guest's calls by how they ended.
#[derive(Debug, Default)]
pub(crate) struct Codes([AtomicU64; CODES.len()]);

impl Codes {
    fn count(&self, code: Code) {
        if let Some(count) = self.0.get(code as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those that there were, with the statuses' names.
    pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        let named = CODES.into_iter().zip(counts);
        named.filter(|(_, count)| *count > 0).collect()
    }
}

/// Method and status.
type Labels = [(&'static str, String); 2];

/// The times of all calls.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    methods: Arc<HashSet<String>>,
    times: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self {
            methods: Arc::new(methods()),
            times: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "vbridge_call_duration_seconds",
            "Time from a call's arrival to its end",
            self.times.clone(),
        );
    }

    /// A method's label.
    pub(crate) fn label(&self, path: &str) -> String {
        match self.methods.contains(path) {
            true => path.trim_start_matches('/').to_owned(),
            false => OTHER.to_owned(),
        }
    }

    /// A call has ended.
    pub(crate) fn ended(&self, guest: Option<&Guest>, method: String, code: Code, time: Duration) {
        if let Some(guest) = guest {
            guest.codes.count(code);
        }
        let labels = [("method", method), ("code", name(code).to_owned())];
        let times = self.times.get_or_create(&labels);
        times.observe(time.as_secs_f64());
    }
}

/// A status as gRPC's documents write it.
pub(crate) fn name(code: Code) -> &'static str {
    CODES.get(code as usize).copied().unwrap_or(OTHER)
}

/// The methods of the services whose contract this bridge has.
fn methods() -> HashSet<String> {
    // What is built in can be decoded: a test below does it.
    let files = FileDescriptorSet::decode(vbridge_api::DESCRIPTOR_SET).unwrap_or_default();
    let mut methods = HashSet::new();
    for file in files.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                methods.insert(path);
            }
        }
    }
    methods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_contract_is_known() {
        let methods = methods();
        for path in [
            "/vbridge.guest.v1.System/Ping",
            "/vbridge.guest.v1.Files/Read",
            "/vbridge.host.v1.Bridge/ListGuests",
        ] {
            assert!(methods.contains(path), "{path}");
        }
    }

    #[test]
    fn every_status_has_its_name() {
        assert_eq!(name(Code::Ok), "OK");
        assert_eq!(name(Code::Unavailable), "UNAVAILABLE");
        assert_eq!(name(Code::Unauthenticated), "UNAUTHENTICATED");
    }
}
