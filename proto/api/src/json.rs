//! The endpoints of the API in JSON, and the guest's methods that a request of each leads to.
//!
//! The bridge serves them; the agent needs to know which of its methods a request may lead to that was signed for an endpoint.

/// What all paths of the API begin with.
pub const PREFIX: &str = "/api/v1/";

/// An endpoint's path behind [`PREFIX`], and the paths of the gRPC methods that may be called for it.
const ENDPOINTS: [(&str, &[&str]); 8] = [
    (
        "ping",
        &[
            "/vbridge.guest.v1.System/Ping",
            "/vbridge.guest.v1.Metrics/Get",
        ],
    ),
    (
        "system/info",
        &[
            "/vbridge.guest.v1.System/GetInfo",
            "/vbridge.guest.v1.Metrics/Get",
        ],
    ),
    ("system/status", &["/vbridge.guest.v1.System/GetStatus"]),
    ("shell/exec", &["/vbridge.guest.v1.Exec/Run"]),
    ("file/upload", &["/vbridge.guest.v1.Files/Write"]),
    ("file/download", &["/vbridge.guest.v1.Files/Read"]),
    (
        "file/info",
        &[
            "/vbridge.guest.v1.Files/Stat",
            "/vbridge.guest.v1.Files/Checksum",
        ],
    ),
    (
        "service/control",
        &[
            "/vbridge.guest.v1.Services/Control",
            "/vbridge.guest.v1.Services/Get",
        ],
    ),
];

/// The paths of the gRPC methods that a request to this path leads to, such as `/vbridge.guest.v1.Exec/Run`. None for what is
/// no endpoint, or asks no guest.
pub fn methods(path: &str) -> &'static [&'static str] {
    let name = path.strip_prefix(PREFIX);
    let mut endpoints = ENDPOINTS.iter();
    let found = endpoints.find(|(endpoint, _)| Some(*endpoint) == name);
    found.map_or(&[], |(_, methods)| methods)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_leads_to_methods_of_the_contract_and_nothing_else_does() {
        use prost::Message as _;
        let set = prost_types::FileDescriptorSet::decode(crate::DESCRIPTOR_SET).unwrap();
        let mut known = Vec::new();
        for file in &set.file {
            for service in &file.service {
                let service_name = format!("{}.{}", file.package(), service.name());
                let methods = service.method.iter();
                known.extend(methods.map(|method| format!("/{service_name}/{}", method.name())));
            }
        }
        for (endpoint, expected) in ENDPOINTS {
            let methods = methods(&format!("{PREFIX}{endpoint}"));
            assert_eq!(methods, expected);
            for method in methods {
                assert!(known.iter().any(|known| known == method), "{method}");
            }
        }
        for path in [
            "/api/v1/shell/exec/",
            "shell/exec",
            "/api/v1/",
            "/api/v1/openapi.json",
            "/vbridge.guest.v1.Exec/Run",
        ] {
            assert!(methods(path).is_empty(), "{path}");
        }
    }
}
