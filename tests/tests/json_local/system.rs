//! What the guest is and how it does: the guest is this machine.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vbridge_tests::fixture::story;

use crate::{World, client::Ask};

fn kernel(file: &str) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/{file}"))?
        .trim()
        .to_owned())
}

fn percent(value: &Value) -> Result<()> {
    let percent = value.as_f64().context("no number")?;
    ensure!((0.0..=100.0).contains(&percent), "{value}");
    Ok(())
}

#[test]
fn a_ping_tells_the_guests_clock_and_how_long_it_is_up() {
    story(async {
        let world = World::start().await?;
        let answer = Ask::get("ping").send(world.address()).await?;
        ensure!(answer.body["message"] == "pong", "{answer:?}");
        let data = answer.data()?;
        let up: f64 = kernel("uptime")?
            .split(' ')
            .next()
            .context("no uptime")?
            .parse()?;
        let told = data["uptime"].as_f64().context("no uptime")?;
        ensure!((up - 60.0..=up).contains(&told), "{told} of {up}");
        let (here, there) = (&answer.body["timestamp"], &data["timestamp"]);
        let apart = here.as_i64().context("no time")? - there.as_i64().context("no time")?;
        ensure!(apart.abs() <= 60, "{answer:?}");
        Ok(())
    });
}

#[test]
fn the_guest_is_described_with_http_1_and_with_http_2_alike() {
    story(async {
        let world = World::start().await?;
        let one = Ask::get("system/info").send(world.address()).await?;
        let data = one.data()?;
        ensure!(data["hostname"] == kernel("sys/kernel/hostname")?, "{data}");
        ensure!(data["kernel"] == kernel("sys/kernel/osrelease")?, "{data}");
        ensure!(data["os"] == "Linux", "{data}");
        ensure!(data["arch"] == std::env::consts::ARCH, "{data}");
        ensure!(
            !data["os_version"].as_str().unwrap_or("").is_empty(),
            "{data}"
        );
        let (total, available) = (&data["memory_total"], &data["memory_available"]);
        ensure!(available.as_u64() <= total.as_u64() && available.as_u64() > Some(0));
        ensure!(data["cpu_count"].as_u64() > Some(0), "{data}");
        let mut two = Ask::get("system/info").send_http2(world.address()).await?;
        let mut data = data.clone();
        data["memory_available"] = two.data()?["memory_available"].clone();
        ensure!(*two.data()? == data, "{two:?}");
        two = Ask::get("ping").send_http2(world.address()).await?;
        ensure!(two.body["message"] == "pong", "{two:?}");
        Ok(())
    });
}

#[test]
fn the_status_is_in_percent_and_by_mount_point() {
    story(async {
        let world = World::start().await?;
        let answer = Ask::get("system/status").send(world.address()).await?;
        let data = answer.data()?;
        percent(&data["cpu_usage"])?;
        percent(&data["memory_usage"])?;
        let disks = data["disk_usage"].as_object().context("no disks")?;
        for (mount_point, usage) in disks {
            ensure!(mount_point.starts_with('/'), "{mount_point}");
            percent(usage)?;
        }
        let load = data["load_average"].as_array().context("no load")?;
        ensure!(
            load.len() == 3 && load.iter().all(Value::is_number),
            "{data}"
        );
        ensure!(data["process_count"].as_u64() > Some(1), "{data}");
        Ok(())
    });
}

#[test]
fn a_guest_is_named_by_the_host_or_by_a_header_and_calls_are_counted() {
    story(async {
        let world = World::start().await?;
        let port = world.address().port();
        for host in [format!("local.localhost:{port}"), "local".to_owned()] {
            let asked = Ask::get("ping").header("Host", &host);
            asked.send(world.address()).await?.data()?;
        }
        let named = Ask::get("ping").header("x-vbridge-guest", "LOCAL");
        named.send(world.address()).await?.data()?;
        let metrics = world.metrics().await?;
        let counted = metrics.lines().find(|line| {
            line.starts_with("vbridge_call_duration_seconds_count")
                && line.contains("vbridge.guest.v1.System/Ping")
        });
        ensure!(
            counted.is_some_and(|line| line.ends_with(" 3")),
            "{counted:?}"
        );
        Ok(())
    });
}
