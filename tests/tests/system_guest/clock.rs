//! The guest's clocks and its time zone.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use prost_types::Timestamp;
use vbridge_api::guest::v1::{
    GetTimezoneRequest, TimeGetRequest, TimeSetRequest, system_client::SystemClient,
    time_client::TimeClient,
};

use crate::world::World;

/// How far the clock is set forward.
const FORWARD: Duration = Duration::from_secs(3 * 3600);

/// What passes between asking and answering, with much to spare.
const NEAR: Duration = Duration::from_secs(30);

fn time(of: Option<Timestamp>) -> Result<SystemTime> {
    Ok(SystemTime::try_from(of.context("there is no time")?)?)
}

fn distance(one: SystemTime, other: SystemTime) -> Duration {
    let forward = one.duration_since(other);
    forward.unwrap_or_else(|error| error.duration())
}

pub(crate) async fn set(world: Arc<World>) -> Result<()> {
    let mut client = TimeClient::new(world.channel().await?);
    let before = client.get(TimeGetRequest {}).await?.into_inner();
    let before = time(before.time)?;
    let wanted = before + FORWARD;
    let request = |time: SystemTime| TimeSetRequest {
        time: Some(time.into()),
        keep_hardware_clock: false,
    };
    let answer = client.set(request(wanted)).await?.into_inner();
    ensure!(answer.hardware_clock_set, "{answer:?}");
    let seconds: u64 = world.shell("date +%s").await?.parse()?;
    let there = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    ensure!(distance(there, wanted) < NEAR, "{answer:?}");
    let now = client.get(TimeGetRequest {}).await?.into_inner();
    ensure!(distance(time(now.hardware_time)?, wanted) < NEAR, "{now:?}");
    // And back: what tests log later is later.
    client.set(request(SystemTime::now())).await?;
    let now = client.get(TimeGetRequest {}).await?.into_inner();
    ensure!(
        distance(time(now.time)?, SystemTime::now()) < NEAR,
        "{now:?}"
    );
    Ok(())
}

pub(crate) async fn zone(world: Arc<World>) -> Result<()> {
    let mut system = SystemClient::new(world.channel().await?);
    for (name, offset) in [("Asia/Kolkata", "+0530"), ("Europe/Berlin", "")] {
        world
            .shell(&format!("timedatectl set-timezone {name}"))
            .await?;
        let zone = system
            .get_timezone(GetTimezoneRequest {})
            .await?
            .into_inner();
        let told = world.shell("date '+%Z %z'").await?;
        let minutes = zone.offset_seconds / 60;
        let ours = format!(
            "{} {:+03}{:02}",
            zone.abbreviation,
            minutes / 60,
            minutes % 60
        );
        ensure!(
            zone.name == name && ours == told && told.ends_with(offset),
            "{zone:?} {told}"
        );
    }
    Ok(())
}
