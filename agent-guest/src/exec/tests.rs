//! Tests of [`super`]: places and memory.

use tonic::Code;
use vbridge_api::guest::v1 as api;

use super::*;
use crate::{events::Bus, limits::MIN_OUTPUT_BUFFER};

fn cat(buffer: usize) -> Command {
    let command = api::Command {
        argv: vec!["cat".to_owned()],
        ..api::Command::default()
    };
    command::start(api::ExecStart {
        command: Some(command),
        output_buffer_bytes: Some(u64::try_from(buffer).unwrap()),
        ..api::ExecStart::default()
    })
    .unwrap()
}

fn is_too_many(result: Result<Attached, Status>) -> bool {
    result.is_err_and(|status| status.code() == Code::ResourceExhausted)
}

#[tokio::test]
async fn a_process_too_many_is_refused_until_another_has_ended() {
    let registry = Registry::with(2, MAX_OUTPUT_KEPT, Bus::new());
    let first = registry
        .start(cat(MIN_OUTPUT_BUFFER), Granted::default())
        .await
        .unwrap();
    let _second = registry
        .start(cat(MIN_OUTPUT_BUFFER), Granted::default())
        .await
        .unwrap();
    assert!(is_too_many(
        registry
            .start(cat(MIN_OUTPUT_BUFFER), Granted::default())
            .await
    ));
    first.process.end_input().await;
    let places = registry.shared.places.acquire().await.unwrap();
    drop(places);
    assert!(
        registry
            .start(cat(MIN_OUTPUT_BUFFER), Granted::default())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_start_that_fails_takes_no_place() {
    let registry = Registry::with(1, MAX_OUTPUT_KEPT, Bus::new());
    for _ in 0..3 {
        let mut command = cat(MIN_OUTPUT_BUFFER);
        command.argv = vec!["/no/such/program".to_owned()];
        let status = registry
            .start(command, Granted::default())
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }
    assert!(registry.list().is_empty());
    assert_eq!(registry.shared.places.available_permits(), 1);
}

#[tokio::test]
async fn output_that_is_kept_gives_way_to_processes_that_run() {
    let registry = Registry::with(10, 4 * MIN_OUTPUT_BUFFER, Bus::new());
    let mut ended = registry
        .start(cat(3 * MIN_OUTPUT_BUFFER), Granted::default())
        .await
        .unwrap();
    assert!(is_too_many(
        registry
            .start(cat(2 * MIN_OUTPUT_BUFFER), Granted::default())
            .await
    ));
    let process = Arc::clone(&ended.process);
    process.give(&vec![b'x'; 2 * MIN_OUTPUT_BUFFER]).await;
    process.end_input().await;
    while !matches!(ended.next().await, Event::Exit(_)) {}
    drop((ended, process));
    // It keeps two parts of four.
    let _second = registry
        .start(cat(2 * MIN_OUTPUT_BUFFER), Granted::default())
        .await
        .unwrap();
    assert_eq!(registry.list().len(), 2);
    let _third = registry
        .start(cat(2 * MIN_OUTPUT_BUFFER), Granted::default())
        .await
        .unwrap();
    assert_eq!(registry.list().len(), 2, "the first is forgotten");
    assert!(is_too_many(
        registry
            .start(cat(MIN_OUTPUT_BUFFER), Granted::default())
            .await
    ));
}

#[tokio::test]
async fn a_process_whose_start_nobody_waits_for_any_more_is_ended() {
    let registry = Registry::with(1, MAX_OUTPUT_KEPT, Bus::new());
    let mut start = Box::pin(registry.start(cat(MIN_OUTPUT_BUFFER), Granted::default()));
    assert!(futures_util::poll!(&mut start).is_pending());
    drop(start);
    // It was started all the same, and its place is free when it has ended.
    let place = registry.shared.places.acquire().await.unwrap();
    drop(place);
    let listed = registry.list();
    let how = listed[0].status.as_ref().and_then(|status| status.how);
    assert_eq!(how, Some(api::exit_status::How::Signal(15)));
}

#[tokio::test]
async fn an_agent_that_stops_starts_nothing() {
    let registry = Registry::new(Bus::new());
    let running = registry
        .start(cat(MIN_OUTPUT_BUFFER), Granted::default())
        .await
        .unwrap();
    registry.stop().await;
    assert!(running.process.is_ended());
    let status = registry
        .start(cat(MIN_OUTPUT_BUFFER), Granted::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[test]
fn long_arguments_are_listed_in_part() {
    let listed = |argv: &[&str]| listed(argv.iter().map(|it| (*it).to_owned()).collect());
    assert_eq!(listed(&["a", "", "b"]), ["a", "", "b"]);
    let long = "ü".repeat(3000);
    let parts = listed(&["sh", &long, "c"]);
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[1].len(), 4092);
    assert!(long.starts_with(&parts[1]));
    assert!(listed(&[""; 5000]).len() <= MAX_LISTED_ARGUMENTS);
}
