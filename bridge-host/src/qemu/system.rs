//! `System`: what the guest says of itself.

use std::sync::Arc;

use prost_types::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tonic::Status;
use vbridge_api::guest::v1 as api;

use super::{
    agent::{Agent, text},
    hardware::Vcpu,
    methods::METHODS,
    refusal::invalid,
};

/// Payload of a Ping, as `system.proto` promises.
const MAX_PING_PAYLOAD: usize = 64 * 1024;

/// Sessions of users, as `system.proto` promises.
const MAX_USERS: usize = 1024;

/// The agent's name.
const NAME: &str = "qemu-ga";

pub(super) async fn ping(
    agent: Arc<Agent>,
    request: api::PingRequest,
) -> Result<api::PingResponse, Status> {
    let payload = request.payload;
    if payload.len() > MAX_PING_PAYLOAD {
        let len = payload.len();
        let description = format!("has {len} bytes, and {MAX_PING_PAYLOAD} is the most");
        return Err(invalid("payload", description));
    }
    agent.tell("guest-ping", Value::Null).await?;
    Ok(api::PingResponse {
        payload,
        // A second question would be a second round trip, and this is to measure one.
        time: None,
        sequence: agent.next_ping(),
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct OsInfo {
    kernel_release: String,
    kernel_version: String,
    machine: String,
    id: String,
    name: String,
    pretty_name: String,
    version: String,
    version_id: String,
    variant_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct HostName {
    host_name: String,
}

pub(super) async fn get_info(
    agent: Arc<Agent>,
    _: api::GetInfoRequest,
) -> Result<api::GetInfoResponse, Status> {
    agent.look_again().await;
    let os: OsInfo = match agent.obstacle(&["guest-get-osinfo"]) {
        None => agent.ask("guest-get-osinfo", Value::Null).await?,
        Some(_) => OsInfo::default(),
    };
    let name: Option<HostName> = agent.ask_if_allowed("guest-get-host-name").await;
    let cpus: Option<Vec<Vcpu>> = agent.ask_if_allowed("guest-get-vcpus").await;
    let online = cpus.map_or(0, |cpus| cpus.iter().filter(|cpu| cpu.online).count());
    let methods = METHODS.iter().map(|method| method.told(&agent)).collect();
    Ok(api::GetInfoResponse {
        hostname: name.map(|name| text(name.host_name)).unwrap_or_default(),
        os: Some(api::OsRelease {
            id: text(os.id),
            name: text(os.name),
            pretty_name: text(os.pretty_name),
            version: text(os.version),
            version_id: text(os.version_id),
            variant_id: text(os.variant_id),
        }),
        kernel: Some(api::Kernel {
            // The agent does not tell.
            name: String::new(),
            release: text(os.kernel_release),
            version: text(os.kernel_version),
        }),
        architecture: text(os.machine),
        cpu_count: u32::try_from(online).unwrap_or(u32::MAX),
        agent: Some(api::Agent {
            name: NAME.to_owned(),
            version: agent.version(),
            ..api::Agent::default()
        }),
        methods,
        ..api::GetInfoResponse::default()
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    user: String,
    /// Seconds since 1970.
    login_time: f64,
}

pub(super) async fn list_users(
    agent: Arc<Agent>,
    _: api::ListUsersRequest,
) -> Result<api::ListUsersResponse, Status> {
    let mut users: Vec<User> = agent.ask("guest-get-users", Value::Null).await?;
    users.sort_by(|a, b| a.login_time.total_cmp(&b.login_time));
    users.truncate(MAX_USERS);
    let users = users.into_iter().map(|user| api::UserSession {
        user: text(user.user),
        login_time: Some(moment(user.login_time)),
        ..api::UserSession::default()
    });
    Ok(api::ListUsersResponse {
        users: users.collect(),
    })
}

/// Seconds since 1970 with their fraction.
fn moment(seconds: f64) -> Timestamp {
    // What no clock shows becomes what one could show: the conversion ends at the type's bounds.
    #[allow(clippy::cast_possible_truncation)]
    let (whole, nanos) = (
        seconds.floor() as i64,
        (seconds.rem_euclid(1.0) * 1e9) as i32,
    );
    Timestamp {
        seconds: whole,
        nanos: nanos.clamp(0, 999_999_999),
    }
}

#[derive(Debug, Deserialize)]
struct Timezone {
    #[serde(default)]
    zone: String,
    /// Seconds east of UTC.
    offset: i32,
}

pub(super) async fn get_timezone(
    agent: Arc<Agent>,
    _: api::GetTimezoneRequest,
) -> Result<api::GetTimezoneResponse, Status> {
    let zone: Timezone = agent.ask("guest-get-timezone", Value::Null).await?;
    Ok(api::GetTimezoneResponse {
        name: String::new(),
        abbreviation: text(zone.zone),
        offset_seconds: zone.offset,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tonic::Code;
    use vbridge_api::guest::v1::system_client::SystemClient;

    use super::*;
    use crate::qemu::script::{Script, info};

    #[tokio::test]
    async fn a_ping_comes_back_counted_and_bounded() {
        let script = Script::fixed([("guest-ping", json!({}))]);
        let mut client = SystemClient::new(script.serve());
        for sequence in 1..=2 {
            let payload = vec![7; MAX_PING_PAYLOAD];
            let request = api::PingRequest {
                payload: payload.clone(),
            };
            let answer = client.ping(request).await.unwrap().into_inner();
            assert_eq!((answer.payload, answer.sequence), (payload, sequence));
        }
        let payload = vec![7; MAX_PING_PAYLOAD + 1];
        let status = client.ping(api::PingRequest { payload }).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(script.commands().len(), 2);
    }

    #[tokio::test]
    async fn info_has_what_the_agent_tells_and_nothing_made_up() {
        let script = Script::fixed([
            (
                "guest-get-osinfo",
                json!({
                    "kernel-release": "6.1.0", "kernel-version": "#1 SMP", "machine": "x86_64",
                    "id": "debian", "name": "Debian", "pretty-name": "Debian 12",
                    "version": "12 (bookworm)", "version-id": "12"
                }),
            ),
            ("guest-get-host-name", json!({ "host-name": "web" })),
            (
                "guest-get-vcpus",
                json!([
                    { "logical-id": 0, "online": true, "can-offline": false },
                    { "logical-id": 1, "online": false }
                ]),
            ),
        ]);
        let mut client = SystemClient::new(script.serve());
        let info = client.get_info(api::GetInfoRequest {}).await;
        let info = info.unwrap().into_inner();
        assert_eq!((info.hostname.as_str(), info.cpu_count), ("web", 1));
        let os = info.os.unwrap();
        assert_eq!((os.id.as_str(), os.version_id.as_str()), ("debian", "12"));
        assert_eq!(info.kernel.unwrap().release, "6.1.0");
        assert_eq!(info.architecture, "x86_64");
        assert_eq!((info.boot_id.as_str(), info.memory_total_bytes), ("", 0));
        let agent = info.agent.unwrap();
        assert_eq!(
            (agent.name.as_str(), agent.version.as_str()),
            (NAME, "9.2.0")
        );
        assert_eq!(info.methods.len(), METHODS.len());
        let of = |name: &str| {
            info.methods
                .iter()
                .find(|method| method.name.ends_with(name))
        };
        assert!(of("Exec/Run").unwrap().enabled);
        let tunnel = of("Tunnel/Connect").unwrap();
        assert!(!tunnel.enabled && tunnel.reason.contains("no command"));
    }

    #[tokio::test]
    async fn methods_whose_commands_are_blocked_say_so_and_info_goes_on_without() {
        let script = Script::fixed([]);
        let info = info(&["guest-info"], &["guest-exec", "guest-exec-status"]);
        let mut client = SystemClient::new(script.serve_with(&info));
        let info = client.get_info(api::GetInfoRequest {}).await;
        let info = info.unwrap().into_inner();
        assert_eq!(info.hostname, "");
        let mut methods = info.methods.iter();
        let run = methods.find(|method| method.name == "vbridge.guest.v1.Exec/Run");
        let run = run.unwrap();
        assert!(!run.enabled && run.reason.contains("does not allow guest-exec"));
    }

    #[tokio::test]
    async fn users_come_by_the_time_of_their_login() {
        let script = Script::fixed([(
            "guest-get-users",
            json!([{ "user": "b", "login-time": 12.5 }, { "user": "a", "domain": "X", "login-time": 3 }]),
        )]);
        let mut client = SystemClient::new(script.serve());
        let users = client.list_users(api::ListUsersRequest {}).await;
        let users = users.unwrap().into_inner().users;
        let names: Vec<_> = users.iter().map(|user| user.user.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let seconds = 12;
        let nanos = 500_000_000;
        assert_eq!(users[1].login_time, Some(Timestamp { seconds, nanos }));
    }

    #[test]
    fn no_number_of_seconds_is_too_strange() {
        for (seconds, whole) in [
            (f64::MAX, i64::MAX),
            (f64::MIN, i64::MIN),
            (f64::NAN, 0),
            (-0.5, -1),
        ] {
            let moment = moment(seconds);
            assert_eq!(moment.seconds, whole);
            assert!((0..1_000_000_000).contains(&moment.nanos));
        }
    }

    #[tokio::test]
    async fn a_time_zone_is_told_by_its_abbreviation() {
        let script = Script::fixed([(
            "guest-get-timezone",
            json!({ "zone": "CEST", "offset": 7200 }),
        )]);
        let mut client = SystemClient::new(script.serve());
        let zone = client.get_timezone(api::GetTimezoneRequest {}).await;
        let zone = zone.unwrap().into_inner();
        assert_eq!(
            (zone.abbreviation.as_str(), zone.offset_seconds),
            ("CEST", 7200)
        );
        for wrong in [
            json!({ "offset": 1e300 }),
            json!([]),
            json!({ "zone": 1, "offset": 0 }),
        ] {
            let script = Script::fixed([("guest-get-timezone", wrong)]);
            let mut client = SystemClient::new(script.serve());
            let status = client.get_timezone(api::GetTimezoneRequest {}).await;
            assert_eq!(status.unwrap_err().code(), Code::Internal);
        }
    }
}
