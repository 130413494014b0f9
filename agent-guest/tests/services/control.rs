//! Control.

use tonic::Code;
use vbridge_api::guest::v1::{ServiceAction, ServicesControlRequest};

use crate::{
    Guest,
    common::within,
    fake::{Bus, Systemd},
    why,
};

fn request(name: &str, action: ServiceAction) -> ServicesControlRequest {
    ServicesControlRequest {
        name: name.to_owned(),
        action: action.into(),
        no_wait: false,
    }
}

#[tokio::test]
async fn a_job_that_ends_before_its_name_is_known_is_done_however_many_others_end() {
    let mut guest = Guest::booted().await;
    let _bus = Bus::start(guest.dir.path());
    let systemd = Systemd::start(guest.dir.path()).await;
    for (name, action) in [
        ("busy", ServiceAction::Start),
        ("noisy", ServiceAction::Restart),
        ("nginx", ServiceAction::Stop),
    ] {
        let answer = within(guest.services.control(request(name, action))).await;
        assert_eq!(answer.unwrap().into_inner().job_result, "done");
    }
    let asked = [
        "StartUnit busy.service replace",
        "RestartUnit noisy.service replace",
        "StopUnit nginx.service replace",
    ];
    assert_eq!(systemd.asked.take(), asked);
}

#[tokio::test]
async fn the_answer_comes_when_the_job_is_done_unless_nobody_waits() {
    let mut guest = Guest::booted().await;
    let _bus = Bus::start(guest.dir.path());
    let systemd = Systemd::start(guest.dir.path()).await;
    let mut services = guest.services.clone();
    let slow = tokio::spawn(async move {
        let answer = services.control(request("slow", ServiceAction::Start));
        answer.await.unwrap().into_inner()
    });
    within(systemd.asked.begun.notified()).await;
    // Others are served meanwhile.
    let busy = guest
        .services
        .control(request("busy", ServiceAction::Start));
    within(busy).await.unwrap();
    assert!(!slow.is_finished());
    systemd.asked.release.notify_one();
    assert_eq!(within(slow).await.unwrap().job_result, "done");
    let at_once = ServicesControlRequest {
        no_wait: true,
        ..request("slow", ServiceAction::Start)
    };
    let answer = within(guest.services.control(at_once)).await.unwrap();
    assert_eq!(answer.into_inner().job_result, "");
}

#[tokio::test]
async fn a_job_that_fails_is_told_with_systemds_word_and_nobody_else_is_believed() {
    let mut guest = Guest::booted().await;
    let _bus = Bus::start(guest.dir.path());
    let _systemd = Systemd::start(guest.dir.path()).await;
    for (name, word) in [("broken", "timeout"), ("forged", "failed")] {
        let answer = guest.services.control(request(name, ServiceAction::Start));
        let status = within(answer).await.unwrap_err();
        let failed = (Code::FailedPrecondition, "JOB_FAILED".to_owned());
        assert_eq!(why(&status), failed);
        assert!(status.message().contains(word), "{status}");
    }
}

#[tokio::test]
async fn what_systemd_refuses_has_its_own_code() {
    let mut guest = Guest::booted().await;
    let _bus = Bus::start(guest.dir.path());
    let _systemd = Systemd::start(guest.dir.path()).await;
    for (name, action, code) in [
        ("none", ServiceAction::Start, Code::NotFound),
        ("none", ServiceAction::Enable, Code::NotFound),
        ("none", ServiceAction::Disable, Code::NotFound),
        ("secret", ServiceAction::Stop, Code::PermissionDenied),
        ("static", ServiceAction::Enable, Code::FailedPrecondition),
        // The made-up one does not know it, as an old one might not.
        ("nginx", ServiceAction::TryRestart, Code::Unimplemented),
        ("nginx", ServiceAction::Unspecified, Code::InvalidArgument),
        ("--now", ServiceAction::Stop, Code::InvalidArgument),
    ] {
        let status = within(guest.services.control(request(name, action))).await;
        assert_eq!(status.unwrap_err().code(), code, "{name} {action:?}");
    }
}

#[tokio::test]
async fn files_of_units_are_changed_and_systemd_reads_them_anew() {
    let mut guest = Guest::booted().await;
    let _bus = Bus::start(guest.dir.path());
    let systemd = Systemd::start(guest.dir.path()).await;
    for action in [
        ServiceAction::Enable,
        ServiceAction::Disable,
        ServiceAction::Mask,
        ServiceAction::ResetFailed,
    ] {
        let answer = within(guest.services.control(request("nginx", action))).await;
        let answer = answer.unwrap().into_inner();
        assert_eq!(answer.job_result, "");
        assert_eq!(answer.unit.unwrap().name, "nginx.service");
    }
    let asked = [
        "EnableUnitFiles nginx.service",
        "Reload",
        "GetUnitFileState nginx.service",
        "DisableUnitFiles nginx.service",
        "Reload",
        "MaskUnitFiles nginx.service",
        "Reload",
        "ResetFailedUnit nginx.service",
    ];
    assert_eq!(systemd.asked.take(), asked);
}

#[tokio::test]
async fn a_job_that_is_waited_for_does_not_hold_up_the_agents_end_or_the_buss() {
    let guest = Guest::booted().await;
    let bus = Bus::start(guest.dir.path());
    let systemd = Systemd::start(guest.dir.path()).await;
    let begin = |guest: &Guest| {
        let mut services = guest.services.clone();
        tokio::spawn(async move {
            let answer = services.control(request("slow", ServiceAction::Start));
            answer.await.unwrap_err()
        })
    };
    let slow = begin(&guest);
    within(systemd.asked.begun.notified()).await;
    drop((systemd, bus));
    assert_eq!(within(slow).await.unwrap().code(), Code::Unavailable);

    let _bus = Bus::start(guest.dir.path());
    let systemd = Systemd::start(guest.dir.path()).await;
    let slow = begin(&guest);
    within(systemd.asked.begun.notified()).await;
    let agent = guest.agent;
    within(agent.stop()).await.unwrap();
    let stopped = (Code::Unavailable, "AGENT_STOPPING".to_owned());
    assert_eq!(why(&within(slow).await.unwrap()), stopped);
}
