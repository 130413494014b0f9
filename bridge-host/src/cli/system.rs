//! `vbridge info` and `vbridge status`: what a guest is, and how it does.

use clap::Args;
use serde_json::{Value, json};
use vbridge_api::guest::v1::{
    GetInfoRequest, GetInfoResponse, GetStatusRequest, GetStatusResponse,
    system_client::SystemClient,
};

use super::{
    client::{Client, GuestOptions},
    failure::Failure,
    output::{Output, facts, listing, print, print_pretty, printable},
    units::{bytes, date, duration, json_seconds, json_time, long_time, percent, share},
};

/// What `vbridge info` takes.
#[derive(Debug, Args)]
pub(super) struct InfoOptions {
    #[command(flatten)]
    guest: GuestOptions,
}

/// What `vbridge status` takes.
#[derive(Debug, Args)]
pub(super) struct StatusOptions {
    #[command(flatten)]
    guest: GuestOptions,
}

/// Facts that stay the same while the guest is up.
pub(super) async fn info(options: &InfoOptions) -> Result<(), Failure> {
    let client = Client::guest(&options.guest).await?;
    let mut system = SystemClient::new(client.channel());
    let asked = client.ask(GetInfoRequest {}, async |request| {
        system.get_info(request).await
    });
    let info = asked.await?;
    match options.guest.client.output {
        Output::Table => print(info_table(&info)),
        Output::Json => print_pretty(&info_json(&info)),
    }
}

/// The state at this moment.
pub(super) async fn status(options: &StatusOptions) -> Result<(), Failure> {
    let client = Client::guest(&options.guest).await?;
    let mut system = SystemClient::new(client.channel());
    let asked = client.ask(GetStatusRequest {}, async |request| {
        system.get_status(request).await
    });
    let status = asked.await?;
    match options.guest.client.output {
        Output::Table => print(status_table(&status)),
        Output::Json => print_pretty(&status_json(&status)),
    }
}

fn info_table(info: &GetInfoResponse) -> String {
    let os = info.os.clone().unwrap_or_default();
    let kernel = info.kernel.clone().unwrap_or_default();
    let agent = info.agent.clone().unwrap_or_default();
    let system = match os.pretty_name.is_empty() {
        true => format!("{} {}", os.name, os.version),
        false => os.pretty_name,
    };
    let enabled = info.methods.iter().filter(|method| method.enabled);
    let mut rows = vec![
        ("Host name", printable(&info.hostname)),
        ("System", printable(system.trim())),
        (
            "Kernel",
            printable(format!("{} {}", kernel.name, kernel.release).trim()),
        ),
        ("Build", printable(&kernel.version)),
        ("Architecture", printable(&info.architecture)),
        ("Virtualization", printable(&info.virtualization)),
        ("CPUs", info.cpu_count.to_string()),
        ("Memory", bytes(info.memory_total_bytes)),
        ("Booted", date(info.boot_time.as_ref())),
        (
            "Up for",
            duration(info.uptime.as_ref())
                .map(long_time)
                .unwrap_or_default(),
        ),
        ("Boot id", printable(&info.boot_id)),
        ("Machine id", printable(&info.machine_id)),
        (
            "Agent",
            printable(format!("{} {}", agent.name, agent.version).trim()),
        ),
        ("Agent since", date(agent.start_time.as_ref())),
        (
            "Agent process",
            format!("{}, {} resident", agent.pid, bytes(agent.resident_bytes)),
        ),
        (
            "Methods",
            format!("{} of {} enabled", enabled.count(), info.methods.len()),
        ),
    ];
    for method in info.methods.iter().filter(|method| !method.enabled) {
        let (name, reason) = (printable(&method.name), printable(&method.reason));
        rows.push(("Not enabled", format!("{name}: {reason}")));
    }
    facts(rows)
}

fn info_json(info: &GetInfoResponse) -> Value {
    let os = info.os.clone().unwrap_or_default();
    let kernel = info.kernel.clone().unwrap_or_default();
    let agent = info.agent.clone().unwrap_or_default();
    let methods = info.methods.iter().map(
        |method| json!({ "name": method.name, "enabled": method.enabled, "reason": method.reason }),
    );
    json!({
        "hostname": info.hostname,
        "os": {
            "id": os.id,
            "name": os.name,
            "pretty_name": os.pretty_name,
            "version": os.version,
            "version_id": os.version_id,
            "variant_id": os.variant_id,
        },
        "kernel": { "name": kernel.name, "release": kernel.release, "version": kernel.version },
        "architecture": info.architecture,
        "boot_id": info.boot_id,
        "machine_id": info.machine_id,
        "boot_time": json_time(info.boot_time.as_ref()),
        "uptime_seconds": json_seconds(info.uptime.as_ref()),
        "virtualization": info.virtualization,
        "cpu_count": info.cpu_count,
        "memory_total_bytes": info.memory_total_bytes,
        "agent": {
            "name": agent.name,
            "version": agent.version,
            "start_time": json_time(agent.start_time.as_ref()),
            "pid": agent.pid,
            "resident_bytes": agent.resident_bytes,
        },
        "methods": methods.collect::<Vec<_>>(),
    })
}

fn status_table(status: &GetStatusResponse) -> String {
    let load = status.load.unwrap_or_default();
    let memory = status.memory.unwrap_or_default();
    let used = |used: u64, total: u64| {
        format!(
            "{} of {} used ({})",
            bytes(used),
            bytes(total),
            share(used, total)
        )
    };
    let swap = match memory.swap_total_bytes {
        0 => "none".to_owned(),
        total => used(memory.swap_used_bytes, total),
    };
    let mut text = facts([
        ("Time", date(status.time.as_ref())),
        (
            "Up for",
            duration(status.uptime.as_ref())
                .map(long_time)
                .unwrap_or_default(),
        ),
        ("CPU", format!("{} busy", percent(status.cpu_percent))),
        (
            "Load",
            format!("{:.2} {:.2} {:.2}", load.one, load.five, load.fifteen),
        ),
        ("Memory", used(memory.used_bytes, memory.total_bytes)),
        ("Available", bytes(memory.available_bytes)),
        ("Swap", swap),
        ("Processes", status.process_count.to_string()),
    ]);
    if !status.filesystems.is_empty() {
        let rows = status.filesystems.iter().map(|mount| {
            vec![
                printable(&mount.mount_point),
                printable(&mount.source),
                printable(&mount.r#type),
                bytes(mount.total_bytes),
                bytes(mount.used_bytes),
                bytes(mount.available_bytes),
                share(
                    mount.used_bytes,
                    mount.used_bytes.saturating_add(mount.available_bytes),
                ),
                if mount.read_only { "ro" } else { "rw" }.to_owned(),
            ]
        });
        let header = [
            "MOUNTED ON",
            "SOURCE",
            "TYPE",
            ">SIZE",
            ">USED",
            ">FREE",
            ">USE",
            "MODE",
        ];
        text.push_str("\n\n");
        text.push_str(&listing(&header, rows));
    }
    text
}

fn status_json(status: &GetStatusResponse) -> Value {
    let load = status.load.unwrap_or_default();
    let memory = status.memory.unwrap_or_default();
    let filesystems = status.filesystems.iter().map(|mount| {
        json!({
            "mount_point": mount.mount_point,
            "source": mount.source,
            "type": mount.r#type,
            "total_bytes": mount.total_bytes,
            "used_bytes": mount.used_bytes,
            "available_bytes": mount.available_bytes,
            "inodes_total": mount.inodes_total,
            "inodes_used": mount.inodes_used,
            "read_only": mount.read_only,
        })
    });
    json!({
        "time": json_time(status.time.as_ref()),
        "uptime_seconds": json_seconds(status.uptime.as_ref()),
        "cpu_percent": status.cpu_percent,
        "load": { "one": load.one, "five": load.five, "fifteen": load.fifteen },
        "memory": {
            "total_bytes": memory.total_bytes,
            "available_bytes": memory.available_bytes,
            "used_bytes": memory.used_bytes,
            "swap_total_bytes": memory.swap_total_bytes,
            "swap_used_bytes": memory.swap_used_bytes,
        },
        "filesystems": filesystems.collect::<Vec<_>>(),
        "process_count": status.process_count,
    })
}

#[cfg(test)]
mod tests {
    use vbridge_api::guest::v1::{FilesystemStatus, Kernel, MemoryStatus, Method, OsRelease};

    use super::*;

    #[test]
    fn info_shows_a_guest_and_what_it_does_not_offer() {
        let info = GetInfoResponse {
            hostname: "web\u{1b}[2J".into(),
            os: Some(OsRelease {
                pretty_name: "Debian 12".into(),
                ..OsRelease::default()
            }),
            kernel: Some(Kernel {
                name: "Linux".into(),
                release: "6.1".into(),
                ..Kernel::default()
            }),
            uptime: Some(prost_types::Duration {
                seconds: 65,
                nanos: 0,
            }),
            memory_total_bytes: 480 << 20,
            methods: vec![Method {
                name: "a.B/C".into(),
                enabled: false,
                reason: "policy".into(),
            }],
            ..GetInfoResponse::default()
        };
        let text = info_table(&info);
        for line in [
            "web\\u{1b}[2J",
            "Debian 12",
            "Linux 6.1",
            "1m 5s",
            "480 MiB",
            "a.B/C: policy",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert_eq!(info_json(&info)["uptime_seconds"], 65.0);
        assert_eq!(info_json(&info)["memory_total_bytes"], 503_316_480);
    }

    #[test]
    fn a_guest_that_says_nothing_of_itself_is_shown_all_the_same() {
        assert!(info_table(&GetInfoResponse::default()).contains("0 of 0 enabled"));
        assert!(status_table(&GetStatusResponse::default()).contains("Swap"));
        assert!(info_json(&GetInfoResponse::default())["boot_time"].is_null());
    }

    #[test]
    fn status_shows_sizes_for_people_and_numbers_for_programs() {
        let status = GetStatusResponse {
            cpu_percent: 3.44,
            memory: Some(MemoryStatus {
                total_bytes: 400 << 20,
                used_bytes: 100 << 20,
                ..MemoryStatus::default()
            }),
            filesystems: vec![FilesystemStatus {
                mount_point: "/".into(),
                total_bytes: 10 << 30,
                used_bytes: 1 << 30,
                available_bytes: 9 << 30,
                ..FilesystemStatus::default()
            }],
            ..GetStatusResponse::default()
        };
        let text = status_table(&status);
        for words in [
            "3.4 % busy",
            "100 MiB of 400 MiB used (25.0 %)",
            "10.0 GiB",
            "10.0 %",
        ] {
            assert!(text.contains(words), "{text}");
        }
        let json = status_json(&status);
        assert_eq!(json["memory"]["used_bytes"], 104_857_600);
        assert_eq!(json["filesystems"][0]["mount_point"], "/");
    }
}
