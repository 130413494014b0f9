//! Logs.

use std::{fs, path::Path};

use tonic::{Code, Streaming};
use vbridge_api::guest::v1::{LogEntry, ServicesLogsRequest, ServicesLogsResponse};

use crate::{
    Guest,
    common::{until, within},
    program, why,
};

/// Everything that comes, and how many were left out.
async fn all(mut entries: Streaming<ServicesLogsResponse>) -> (Vec<LogEntry>, u32) {
    let (mut all, mut skipped) = (Vec::new(), 0);
    while let Some(message) = within(entries.message()).await.unwrap() {
        assert!(message.entries.len() <= 256);
        assert!(!message.entries.is_empty() || message.skipped > 0);
        all.extend(message.entries);
        skipped += message.skipped;
    }
    (all, skipped)
}

async fn begin(guest: &mut Guest, request: ServicesLogsRequest) -> Streaming<ServicesLogsResponse> {
    let entries = within(guest.services.logs(request)).await;
    entries.unwrap().into_inner()
}

/// A program that shows a file.
fn shows(guest: &Guest, content: &[u8]) {
    fs::write(guest.at("content"), content).unwrap();
    let text = format!("#!/bin/sh\nexec cat {}\n", guest.at("content").display());
    program(&guest.at("journalctl"), &text);
}

/// Waits until a process is nobody's any more, not even a zombie.
async fn gone(pid: &str) {
    let path = format!("/proc/{}", pid.trim());
    until(|| !Path::new(&path).exists()).await;
}

#[tokio::test]
async fn whatever_the_journal_holds_arrives_as_text_or_is_counted() {
    let mut guest = Guest::booted().await;
    let mut content = Vec::new();
    content.extend(b"{\"MESSAGE\":\"one\",\"_PID\":\"7\",\"PRIORITY\":\"3\"}\n");
    content.extend(b"{\"MESSAGE\":[104,105,255],\"SYSLOG_IDENTIFIER\":[27,91]}\n");
    content.extend(b"{\"MESSAGE\":null}\n");
    content.extend(b"{\"MESSAGE\":\"bad \xff\xfe\"}\n");
    content.extend(b"not json\n\n{\"MESSAGE\":\n\xff\n");
    content.extend(b"{\"MESSAGE\":\"");
    content.extend(vec![b'x'; 2 << 20]);
    content.extend(b"\"}\n{\"MESSAGE\":\"");
    content.extend(vec![b'y'; 512 * 1024]);
    content.extend(b"\"}\n{\"MESSAGE\":\"last\"}\n{\"MESSAGE\":\"half\"");
    shows(&guest, &content);
    let entries = begin(&mut guest, ServicesLogsRequest::default()).await;
    let (entries, skipped) = all(entries).await;
    let messages: Vec<&str> = entries.iter().map(|it| it.message.as_str()).collect();
    let cut = "y".repeat(64 * 1024);
    let expected = [
        "one",
        "hi\u{fffd}",
        "",
        "bad \u{fffd}\u{fffd}",
        &cut,
        "last",
    ];
    assert!(messages == expected, "{}", messages.len());
    assert_eq!(skipped, 5);
    assert_eq!((entries[0].pid, entries[0].priority), (7, 3));
    assert_eq!(entries[1].identifier, "\u{1b}[");
}

#[tokio::test]
async fn many_entries_arrive_in_their_order() {
    let mut guest = Guest::booted().await;
    let line = |i: u32| format!("{{\"MESSAGE\":\"{i}\"}}\n");
    shows(&guest, (0..10_000).map(line).collect::<String>().as_bytes());
    let entries = begin(&mut guest, ServicesLogsRequest::default()).await;
    let (entries, skipped) = all(entries).await;
    let numbers = entries
        .iter()
        .map(|entry| entry.message.parse::<u32>().unwrap());
    assert!(numbers.eq(0..10_000) && skipped == 0);
}

#[tokio::test]
async fn the_program_gets_only_flags_and_ends_with_the_call_that_follows_it() {
    let mut guest = Guest::booted().await;
    let dir = guest.dir.path().display();
    let text = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > {dir}/arguments\necho $$ > {dir}/pid\n\
         echo '{{\"MESSAGE\":\"now\"}}'\nexec sleep 1000\n"
    );
    program(&guest.at("journalctl"), &text);
    let request = ServicesLogsRequest {
        units: vec!["nginx".to_owned()],
        follow: true,
        ..ServicesLogsRequest::default()
    };
    let mut entries = begin(&mut guest, request).await;
    let first = within(entries.message()).await.unwrap().unwrap();
    assert_eq!(first.entries[0].message, "now");
    let arguments = fs::read_to_string(guest.at("arguments")).unwrap();
    let arguments: Vec<&str> = arguments.lines().collect();
    assert!(
        arguments.iter().all(|it| it.starts_with("--")),
        "{arguments:?}"
    );
    assert!(arguments.contains(&"--unit=nginx.service"));
    let pid = fs::read_to_string(guest.at("pid")).unwrap();
    drop(entries);
    gone(&pid).await;
}

#[tokio::test]
async fn a_journal_that_is_followed_does_not_hold_up_the_agents_end() {
    let mut guest = Guest::booted().await;
    let pid = guest.at("pid").display().to_string();
    let text =
        format!("#!/bin/sh\necho $$ > {pid}\necho '{{\"MESSAGE\":\"now\"}}'\nexec sleep 1000\n");
    program(&guest.at("journalctl"), &text);
    let mut entries = begin(&mut guest, ServicesLogsRequest::default()).await;
    within(entries.message()).await.unwrap().unwrap();
    let pid = fs::read_to_string(pid).unwrap();
    let agent = guest.agent;
    within(agent.stop()).await.unwrap();
    let status = within(entries.message()).await.unwrap_err();
    let stopped = (Code::Unavailable, "AGENT_STOPPING".to_owned());
    assert_eq!(why(&status), stopped);
    // Whether its parent still reaps it is another matter: the runtime has gone.
    assert!(!pid.is_empty());
}

#[tokio::test]
async fn what_the_program_says_of_errors_is_told_at_the_end_and_does_not_stop_it() {
    let mut guest = Guest::booted().await;
    // More than a pipe holds.
    let text = "#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' 'e' >&2\n\
                echo '{\"MESSAGE\":\"one\"}'\necho >&2\necho 'No such cursor' >&2\nexit 1\n";
    program(&guest.at("journalctl"), text);
    let mut entries = begin(&mut guest, ServicesLogsRequest::default()).await;
    let first = within(entries.message()).await.unwrap().unwrap();
    assert_eq!(first.entries[0].message, "one");
    let status = within(entries.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().ends_with(": No such cursor"), "{status}");
}

#[tokio::test]
async fn a_program_that_can_not_be_run_and_calls_too_many_are_refused() {
    let mut guest = Guest::booted().await;
    fs::write(guest.at("journalctl"), "no program").unwrap();
    let status = within(guest.services.logs(ServicesLogsRequest::default())).await;
    let failed = (Code::FailedPrecondition, "CMD_EXEC_FAILED".to_owned());
    assert_eq!(why(&status.unwrap_err()), failed);
    fs::remove_file(guest.at("journalctl")).unwrap();
    program(
        &guest.at("journalctl"),
        "#!/bin/sh\necho '{\"MESSAGE\":\"now\"}'\nexec sleep 1000\n",
    );
    let mut open = Vec::new();
    for _ in 0..16 {
        let mut entries = begin(&mut guest, ServicesLogsRequest::default()).await;
        within(entries.message()).await.unwrap().unwrap();
        open.push(entries);
    }
    let status = within(guest.services.logs(ServicesLogsRequest::default())).await;
    let too_many = (Code::ResourceExhausted, "TOO_MANY".to_owned());
    assert_eq!(why(&status.unwrap_err()), too_many);
}
