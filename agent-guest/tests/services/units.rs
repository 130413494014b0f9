//! List and Get.

use tonic::Code;
use vbridge_api::guest::v1::{ServicesGetRequest, ServicesListRequest, Unit};

use crate::{
    Guest,
    common::within,
    fake::{Bus, Systemd},
    why,
};

fn named(name: &str) -> ServicesGetRequest {
    let name = name.to_owned();
    ServicesGetRequest { name }
}

#[tokio::test]
async fn a_unit_is_told_with_what_systemd_counts_of_it() {
    let mut guest = Guest::booted().await;
    let _bus = Bus::start(guest.dir.path());
    let _systemd = Systemd::start(guest.dir.path()).await;
    assert_eq!(guest.disabled().await, ["Logs"]);
    let answer = within(guest.services.get(named("nginx"))).await.unwrap();
    let expected = Unit {
        name: "nginx.service".to_owned(),
        description: "A web server".to_owned(),
        load_state: "loaded".to_owned(),
        active_state: "active".to_owned(),
        sub_state: "running".to_owned(),
        file_state: "enabled".to_owned(),
        main_pid: 4711,
        state_time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        path: "/usr/lib/systemd/system/nginx.service".to_owned(),
        memory_bytes: Some(1 << 20),
        restarts: 2,
        result: "success".to_owned(),
        ..Unit::default()
    };
    assert_eq!(answer.into_inner().unit, Some(expected));
}

#[tokio::test]
async fn a_unit_that_is_not_there_is_not_found_and_a_name_that_is_none_invalid() {
    let mut guest = Guest::booted().await;
    let _bus = Bus::start(guest.dir.path());
    let systemd = Systemd::start(guest.dir.path()).await;
    let status = within(guest.services.get(named("none"))).await.unwrap_err();
    assert_eq!(why(&status), (Code::NotFound, "NOT_FOUND".to_owned()));
    for name in ["", "--now", "a b", "../x", "nginx*"] {
        let status = within(guest.services.get(named(name))).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
    }
    assert!(systemd.asked.take().is_empty());
}

#[tokio::test]
async fn units_are_listed_by_name_and_with_all_those_that_only_have_files() {
    let mut guest = Guest::booted().await;
    let _bus = Bus::start(guest.dir.path());
    let systemd = Systemd::start(guest.dir.path()).await;
    let list = within(guest.services.list(ServicesListRequest::default()));
    let list = list.await.unwrap().into_inner();
    let names = |units: &[Unit]| -> Vec<String> {
        let name = |unit: &Unit| format!("{} {}", unit.name, unit.file_state);
        units.iter().map(name).collect()
    };
    assert_eq!(names(&list.units), ["a.service ", "nginx.service "]);
    assert!(!list.more && list.units[0].description.len() < 1000);
    let request = ServicesListRequest {
        patterns: vec!["nginx".to_owned(), "*.timer".to_owned()],
        active_states: vec!["active".to_owned(), "inactive".to_owned()],
        all: true,
    };
    let list = within(guest.services.list(request)).await.unwrap();
    let expected = [
        "a.service ",
        "nginx.service enabled",
        "off.service disabled",
    ];
    assert_eq!(names(&list.into_inner().units), expected);
    let asked = [
        "ListUnitsByPatterns  *.service",
        "ListUnitsByPatterns active,inactive nginx.service,*.timer",
    ];
    assert_eq!(systemd.asked.take(), asked);
    let request = ServicesListRequest {
        active_states: vec!["lazy".to_owned()],
        ..ServicesListRequest::default()
    };
    let status = within(guest.services.list(request)).await.unwrap_err();
    assert!(status.message().starts_with("active_states[0]"), "{status}");
}

#[tokio::test]
async fn a_list_ends_at_its_limit_and_says_that_there_are_more() {
    let mut guest = Guest::booted().await;
    let _bus = Bus::start(guest.dir.path());
    let _systemd = Systemd::start(guest.dir.path()).await;
    let request = ServicesListRequest {
        patterns: vec!["many*".to_owned()],
        ..ServicesListRequest::default()
    };
    let list = within(guest.services.list(request)).await.unwrap();
    let list = list.into_inner();
    assert_eq!((list.units.len(), list.more), (4096, true));
}

#[tokio::test]
async fn the_bus_may_go_and_come_back() {
    let mut guest = Guest::booted().await;
    let bus = Bus::start(guest.dir.path());
    // The bus is there, and systemd is not.
    let status = within(guest.services.get(named("nginx"))).await;
    assert_eq!(status.unwrap_err().code(), Code::Unavailable);
    let systemd = Systemd::start(guest.dir.path()).await;
    within(guest.services.get(named("nginx"))).await.unwrap();
    drop((systemd, bus));
    let status = within(guest.services.get(named("nginx"))).await;
    assert_eq!(status.unwrap_err().code(), Code::Unavailable);
    let _bus = Bus::start(guest.dir.path());
    let _systemd = Systemd::start(guest.dir.path()).await;
    within(guest.services.get(named("nginx"))).await.unwrap();
}
