//! `ping`, `system/info` and `system/status`.

use std::time::Duration;

use serde_json::{Map, Value, json};
use vbridge_api::guest::v1::{
    FilesystemStatus, GetInfoRequest, GetStatusRequest, MetricGroup, MetricsGetRequest,
    MetricsSample, OsRelease, PingRequest, metrics_client::MetricsClient,
    system_client::SystemClient,
};

use super::{answer::Answer, code::Failure};
use crate::inside::Inside;

/// A sign of life. The uptime comes from the metrics, which a guest gives while its file systems stand still, too.
pub(super) async fn ping(guest: &Inside) -> Result<Answer, Failure> {
    let mut system = SystemClient::with_origin(guest.clone(), Inside::origin());
    let (ping, sample) = tokio::try_join!(
        system.ping(PingRequest::default()),
        sample(guest, MetricGroup::Processes)
    )?;
    let time = ping.into_inner().time.unwrap_or_default();
    let uptime = seconds(sample.uptime.as_ref());
    let data = json!({"timestamp": time.seconds, "uptime": uptime.as_secs()});
    Ok(Answer::Data("pong", data))
}

/// What the guest is.
pub(super) async fn info(guest: &Inside) -> Result<Answer, Failure> {
    let mut system = SystemClient::with_origin(guest.clone(), Inside::origin());
    let (info, sample) = tokio::try_join!(
        system.get_info(GetInfoRequest::default()),
        sample(guest, MetricGroup::Memory)
    )?;
    let info = info.into_inner();
    let kernel = info.kernel.unwrap_or_default();
    let memory = sample.memory.unwrap_or_default();
    Ok(Answer::success(json!({
        "hostname": info.hostname,
        "os": kernel.name,
        "os_version": os_version(&info.os.unwrap_or_default()),
        "kernel": kernel.release,
        "arch": info.architecture,
        "cpu_count": info.cpu_count,
        "memory_total": info.memory_total_bytes,
        "memory_available": memory.available_bytes,
    })))
}

/// How the guest is.
pub(super) async fn status(guest: &Inside) -> Result<Answer, Failure> {
    let mut system = SystemClient::with_origin(guest.clone(), Inside::origin());
    let status = system.get_status(GetStatusRequest::default()).await?;
    let status = status.into_inner();
    let memory = status.memory.unwrap_or_default();
    let load = status.load.unwrap_or_default();
    let disks: Map<String, Value> = status
        .filesystems
        .iter()
        .map(|system| (system.mount_point.clone(), disk_usage(system).into()))
        .collect();
    Ok(Answer::success(json!({
        "cpu_usage": rounded(status.cpu_percent),
        "memory_usage": percent(memory.used_bytes, memory.total_bytes),
        "disk_usage": disks,
        "load_average": [rounded(load.one), rounded(load.five), rounded(load.fifteen)],
        "process_count": status.process_count,
    })))
}

async fn sample(guest: &Inside, group: MetricGroup) -> Result<MetricsSample, tonic::Status> {
    let mut metrics = MetricsClient::with_origin(guest.clone(), Inside::origin());
    let request = MetricsGetRequest {
        groups: vec![group.into()],
    };
    let answer = metrics.get(request).await?;
    Ok(answer.into_inner().sample.unwrap_or_default())
}

/// A duration of the contract; none where there is none, or a negative one.
pub(super) fn seconds(duration: Option<&prost_types::Duration>) -> Duration {
    duration
        .and_then(|duration| Duration::try_from(*duration).ok())
        .unwrap_or_default()
}

/// The distribution with its version, as far as it tells them.
fn os_version(os: &OsRelease) -> String {
    match os.pretty_name.is_empty() {
        false => os.pretty_name.clone(),
        true => format!("{} {}", os.name, os.version).trim().to_owned(),
    }
}

/// As `df` has it: of what there is for users, without what is kept back for root.
fn disk_usage(system: &FilesystemStatus) -> f64 {
    let usable = system.used_bytes.saturating_add(system.available_bytes);
    percent(system.used_bytes, usable)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a percentage with two decimals needs no more"
)]
fn percent(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => rounded(part as f64 * 100.0 / whole as f64),
    }
}

/// With two decimals. JSON has no number for what is none.
fn rounded(number: f64) -> f64 {
    match number.is_finite() {
        true => (number * 100.0).round() / 100.0,
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_as_full_as_df_says() {
        let system = FilesystemStatus {
            total_bytes: 1000,
            used_bytes: 600,
            available_bytes: 350,
            ..FilesystemStatus::default()
        };
        assert_eq!(disk_usage(&system), 63.16);
        assert_eq!(disk_usage(&FilesystemStatus::default()), 0.0);
    }

    #[test]
    fn what_is_no_number_is_none_in_json_either() {
        assert_eq!(rounded(f64::NAN), 0.0);
        assert_eq!(rounded(f64::INFINITY), 0.0);
        assert_eq!(rounded(15.504), 15.5);
    }

    #[test]
    fn an_operating_system_has_the_name_that_it_tells() {
        let mut os = OsRelease {
            name: "Debian GNU/Linux".to_owned(),
            ..OsRelease::default()
        };
        assert_eq!(os_version(&os), "Debian GNU/Linux");
        os.version = "12".to_owned();
        assert_eq!(os_version(&os), "Debian GNU/Linux 12");
        os.pretty_name = "Debian 12".to_owned();
        assert_eq!(os_version(&os), "Debian 12");
    }
}
