//! Calls about domains, and about what the host could give them: what becomes of a method's arguments and of its reply.
//! Few hypervisors have these, and none without preparation.

use std::{fmt::Debug, time::Duration};

use futures_util::{
    FutureExt as _,
    future::{join_all, try_join},
};
use libvirt::{
    Connect, Domain, Params,
    domain::{ControlInfo, DiskError, IoThread, SecurityLabel},
    raw::{api, remote},
    rpc::Procedure,
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::script::{Answer, Scripted, hyper, is, text, words};

const KIB: u64 = 1 << 10;

/// For what must not hang.
const SOON: Duration = Duration::from_secs(10);

/// A daemon with a domain, and an answer to each procedure that has one.
fn daemon() -> Scripted {
    Scripted::unix(|procedure, _| {
        let answers = [
            (
                remote::DOMAIN_LOOKUP_BY_NAME,
                [text("web"), vec![7; 16], words(&[3])].concat(),
            ),
            (
                remote::DOMAIN_GET_CONTROL_INFO,
                [words(&[3, 2]), hyper(1500)].concat(),
            ),
            (
                remote::DOMAIN_GET_DISK_ERRORS,
                [words(&[1]), text("vda"), words(&[2, 1])].concat(),
            ),
            (remote::DOMAIN_GET_AUTOSTART_ONCE, words(&[1])),
            (
                remote::DOMAIN_GET_IOTHREAD_INFO,
                [words(&[1, 4, 1]), vec![5, 0, 0, 0], words(&[1])].concat(),
            ),
            (
                remote::DOMAIN_GET_SECURITY_LABEL_LIST,
                [
                    words(&[1, 3]),
                    words(&[b'a', b':', 0].map(u32::from)),
                    words(&[1, 1]),
                ]
                .concat(),
            ),
            (
                remote::DOMAIN_GET_SCHEDULER_TYPE,
                [text("posix"), words(&[5])].concat(),
            ),
            (remote::DOMAIN_MANAGED_SAVE_GET_XML_DESC, text("<domain/>")),
            (remote::DOMAIN_MIGRATE_GET_MAX_DOWNTIME, hyper(300)),
            (
                remote::DOMAIN_MIGRATE_GET_COMPRESSION_CACHE,
                hyper(64 * KIB),
            ),
            (remote::CONNECT_COMPARE_HYPERVISOR_CPU, words(&[2])),
            (remote::CONNECT_BASELINE_HYPERVISOR_CPU, text("<cpu/>")),
            (remote::NODE_ALLOC_PAGES, words(&[2])),
        ];
        let mut answers = answers.into_iter();
        let answer = answers.find(|(of, _)| is(procedure, of));
        answer.map_or(Answer::Usual, |(_, answer)| Answer::Say(answer))
    })
}

async fn web(daemon: &Scripted) -> (Connect, Domain) {
    let opening = Connect::builder(&daemon.uri).keepalive(None).open();
    let connect = opening.await.unwrap();
    let domain = connect.domain_by_name("web").await.unwrap();
    (connect, domain)
}

/// The last call was of this procedure, with these arguments.
#[track_caller]
fn assert_sent<T: DeserializeOwned + PartialEq + Debug>(
    daemon: &Scripted,
    procedure: &Procedure,
    arguments: &T,
) {
    let call = daemon.calls().pop().unwrap();
    assert!(is(call.procedure, procedure), "{}", procedure.name);
    let sent: T = libvirt_xdr::from_bytes(&call.arguments).unwrap();
    assert_eq!(sent, *arguments);
}

/// The parameter of these tests.
fn params() -> Params {
    Params::new().with("number", 5_u32)
}

/// The same as it goes over the wire.
fn raw_params() -> Vec<remote::TypedParam> {
    vec![remote::TypedParam {
        field: "number".to_owned(),
        value: remote::TypedParamValue::Uint(5),
    }]
}

#[tokio::test]
async fn what_a_domain_says_of_itself_is_read() {
    let daemon = daemon();
    let (connect, domain) = web(&daemon).await;
    let expected = ControlInfo {
        state: api::DomainControlState::Error.into(),
        reason: api::DomainControlErrorReason::Monitor.into(),
        elapsed: Duration::from_millis(1500),
    };
    assert_eq!(domain.control_info().await.unwrap(), expected);
    let expected = DiskError {
        disk: "vda".to_owned(),
        error: api::DomainDiskErrorCode::NoSpace.into(),
    };
    assert_eq!(domain.disk_errors().await.unwrap(), [expected]);
    let dom = || domain.raw().clone();
    assert_sent(
        &daemon,
        &remote::DOMAIN_GET_DISK_ERRORS,
        &remote::DomainGetDiskErrorsArgs {
            dom: dom(),
            maxerrors: 256,
            flags: 0,
        },
    );
    assert!(domain.autostart_once().await.unwrap());
    let current = api::DomainModificationImpact::CURRENT;
    let expected = IoThread {
        id: 4,
        cpus: vec![5],
    };
    assert_eq!(domain.iothreads(current).await.unwrap(), [expected]);
    let expected = SecurityLabel {
        label: "a:".to_owned(),
        enforcing: true,
    };
    assert_eq!(domain.security_labels().await.unwrap(), [expected]);
    assert_eq!(domain.scheduler().await.unwrap(), "posix");
    let xml = domain.managed_save_xml(api::DomainSaveImageXmlFlags::empty());
    assert_eq!(xml.await.unwrap(), "<domain/>");
    assert_eq!(domain.migration_downtime().await.unwrap(), 300);
    assert_eq!(domain.migration_cache().await.unwrap(), 64 * KIB);
    connect.close().await;
}

#[tokio::test]
async fn what_a_domain_is_told_of_cpus_and_threads_arrives() {
    let daemon = daemon();
    let (connect, domain) = web(&daemon).await;
    let dom = || domain.raw().clone();
    let params = params();
    let config = api::DomainModificationImpact::CONFIG;

    let live = api::DomainSetVcpuFlags::AFFECT_LIVE;
    domain.set_vcpu("0,2-3", false, live).await.unwrap();
    let sent = remote::DomainSetVcpuArgs {
        dom: dom(),
        cpumap: "0,2-3".to_owned(),
        state: 0,
        flags: 1,
    };
    assert_sent(&daemon, &remote::DOMAIN_SET_VCPU, &sent);

    domain.set_guest_vcpus("1", true).await.unwrap();
    let sent = remote::DomainSetGuestVcpusArgs {
        dom: dom(),
        cpumap: "1".to_owned(),
        state: 1,
        flags: 0,
    };
    assert_sent(&daemon, &remote::DOMAIN_SET_GUEST_VCPUS, &sent);

    domain
        .set_iothread_parameters(4, &params, config)
        .await
        .unwrap();
    let sent = remote::DomainSetIothreadParamsArgs {
        dom: dom(),
        iothread_id: 4,
        params: raw_params(),
        flags: 2,
    };
    assert_sent(&daemon, &remote::DOMAIN_SET_IOTHREAD_PARAMS, &sent);

    domain.pin_iothread(4, &[3], config).await.unwrap();
    let sent = remote::DomainPinIothreadArgs {
        dom: dom(),
        iothreads_id: 4,
        cpumap: vec![3],
        flags: 2,
    };
    assert_sent(&daemon, &remote::DOMAIN_PIN_IOTHREAD, &sent);

    domain
        .measure_dirty_rate(2, api::DomainDirtyRateCalcFlags::DIRTY_RING)
        .await
        .unwrap();
    let sent = remote::DomainStartDirtyRateCalcArgs {
        dom: dom(),
        seconds: 2,
        flags: 2,
    };
    assert_sent(&daemon, &remote::DOMAIN_START_DIRTY_RATE_CALC, &sent);
    connect.close().await;
}

#[tokio::test]
async fn what_a_domain_is_told_of_its_life_arrives() {
    let daemon = daemon();
    let (connect, domain) = web(&daemon).await;
    let dom = || domain.raw().clone();
    let params = params();

    domain.set_autostart_once(true).await.unwrap();
    let sent = remote::DomainSetAutostartOnceArgs {
        dom: dom(),
        autostart: 1,
    };
    assert_sent(&daemon, &remote::DOMAIN_SET_AUTOSTART_ONCE, &sent);

    domain
        .abort_job_with(api::DomainAbortJobFlagsValues::POSTCOPY)
        .await
        .unwrap();
    let sent = remote::DomainAbortJobFlagsArgs {
        dom: dom(),
        flags: 1,
    };
    assert_sent(&daemon, &remote::DOMAIN_ABORT_JOB_FLAGS, &sent);

    domain
        .save_with(&params, api::DomainSaveRestoreFlags::PAUSED)
        .await
        .unwrap();
    let sent = remote::DomainSaveParamsArgs {
        dom: dom(),
        params: raw_params(),
        flags: 4,
    };
    assert_sent(&daemon, &remote::DOMAIN_SAVE_PARAMS, &sent);

    connect
        .restore_domain_with(&params, api::DomainSaveRestoreFlags::RUNNING)
        .await
        .unwrap();
    let sent = remote::DomainRestoreParamsArgs {
        params: raw_params(),
        flags: 2,
    };
    assert_sent(&daemon, &remote::DOMAIN_RESTORE_PARAMS, &sent);

    domain
        .define_managed_save_xml("<d/>", api::DomainSaveRestoreFlags::RUNNING)
        .await
        .unwrap();
    let sent = remote::DomainManagedSaveDefineXmlArgs {
        dom: dom(),
        dxml: Some("<d/>".to_owned()),
        flags: 2,
    };
    assert_sent(&daemon, &remote::DOMAIN_MANAGED_SAVE_DEFINE_XML, &sent);

    domain.set_migration_cache(64 * KIB).await.unwrap();
    let sent = remote::DomainMigrateSetCompressionCacheArgs {
        dom: dom(),
        cache_size: 64 * KIB,
        flags: 0,
    };
    assert_sent(
        &daemon,
        &remote::DOMAIN_MIGRATE_SET_COMPRESSION_CACHE,
        &sent,
    );
    connect.close().await;
}

#[tokio::test]
async fn what_a_domain_is_told_of_its_devices_arrives() {
    let daemon = daemon();
    let (connect, domain) = web(&daemon).await;
    let dom = || domain.raw().clone();
    let params = params();
    let config = api::DomainModificationImpact::CONFIG;

    domain
        .set_throttle_group("g", &params, config)
        .await
        .unwrap();
    let sent = remote::DomainSetThrottleGroupArgs {
        dom: dom(),
        group: "g".to_owned(),
        params: raw_params(),
        flags: 2,
    };
    assert_sent(&daemon, &remote::DOMAIN_SET_THROTTLE_GROUP, &sent);

    domain.delete_throttle_group("g", config).await.unwrap();
    let sent = remote::DomainDelThrottleGroupArgs {
        dom: dom(),
        group: Some("g".to_owned()),
        flags: 2,
    };
    assert_sent(&daemon, &remote::DOMAIN_DEL_THROTTLE_GROUP, &sent);

    domain
        .announce_interface(Some("net0"), &params)
        .await
        .unwrap();
    let sent = remote::DomainAnnounceInterfaceArgs {
        dom: dom(),
        device: Some("net0".to_owned()),
        params: raw_params(),
        flags: 0,
    };
    assert_sent(&daemon, &remote::DOMAIN_ANNOUNCE_INTERFACE, &sent);

    domain
        .reload_graphics(api::DomainGraphicsReloadType::Vnc)
        .await
        .unwrap();
    let sent = remote::DomainGraphicsReloadArgs {
        dom: dom(),
        r#type: 1,
        flags: 0,
    };
    assert_sent(&daemon, &remote::DOMAIN_GRAPHICS_RELOAD, &sent);

    domain.set_launch_security_state(&params).await.unwrap();
    let sent = remote::DomainSetLaunchSecurityStateArgs {
        dom: dom(),
        params: raw_params(),
        flags: 0,
    };
    assert_sent(&daemon, &remote::DOMAIN_SET_LAUNCH_SECURITY_STATE, &sent);
    connect.close().await;
}

#[tokio::test]
async fn what_the_host_could_give_domains_is_asked_and_set() {
    let daemon = daemon();
    let (connect, _) = web(&daemon).await;
    let text = |text: &str| Some(text.to_owned());
    let kind = (Some("/bin/qemu"), Some("x86_64"), Some("q35"), Some("kvm"));
    let flags = api::ConnectCompareCpuFlags::FAIL_INCOMPATIBLE;
    let compared = connect
        .compare_hypervisor_cpu(kind.0, kind.1, kind.2, kind.3, "<a/>", flags)
        .await;
    assert_eq!(compared.unwrap(), api::CpuCompareResult::Superset);
    let sent = remote::ConnectCompareHypervisorCpuArgs {
        emulator: text("/bin/qemu"),
        arch: text("x86_64"),
        machine: text("q35"),
        virttype: text("kvm"),
        xml_cpu: "<a/>".to_owned(),
        flags: 1,
    };
    assert_sent(&daemon, &remote::CONNECT_COMPARE_HYPERVISOR_CPU, &sent);

    let flags = api::ConnectBaselineCpuFlags::MIGRATABLE;
    let baseline = connect
        .baseline_hypervisor_cpu(None, None, None, kind.3, &["<a/>", "<b/>"], flags)
        .await;
    assert_eq!(baseline.unwrap(), "<cpu/>");
    let sent = remote::ConnectBaselineHypervisorCpuArgs {
        emulator: None,
        arch: None,
        machine: None,
        virttype: text("kvm"),
        xml_cpus: vec!["<a/>".to_owned(), "<b/>".to_owned()],
        flags: 2,
    };
    assert_sent(&daemon, &remote::CONNECT_BASELINE_HYPERVISOR_CPU, &sent);

    let flags = api::NodeAllocPagesFlags::SET;
    let done = connect
        .alloc_pages(&[(2048, 100), (1 << 20, 1)], 0, 2, flags)
        .await;
    assert_eq!(done.unwrap(), 2);
    let sent = remote::NodeAllocPagesArgs {
        page_sizes: vec![2048, 1 << 20],
        page_counts: vec![100, 1],
        start_cell: 0,
        cell_count: 2,
        flags: 1,
    };
    assert_sent(&daemon, &remote::NODE_ALLOC_PAGES, &sent);
    connect.close().await;
}

#[tokio::test]
async fn what_aborts_a_job_passes_the_calls_that_wait_for_it() {
    let daemon = Scripted::unix(|procedure, _| {
        if is(procedure, &remote::DOMAIN_GET_STATE) {
            Answer::Withhold
        } else if is(procedure, &remote::DOMAIN_LOOKUP_BY_NAME) {
            Answer::Say([text("web"), vec![7; 16], words(&[3])].concat())
        } else {
            Answer::Usual
        }
    });
    let opening = Connect::builder(&daemon.uri)
        .calls_at_once(2)
        .keepalive(None)
        .open();
    let connect = opening.await.unwrap();
    let domain = connect.domain_by_name("web").await.unwrap();
    // As many as the daemon has at a time, and one that waits for its turn.
    let mut waiting = Box::pin(join_all((0..3).map(|_| domain.state())));
    assert!(waiting.as_mut().now_or_never().is_none());
    let flags = api::DomainAbortJobFlagsValues::POSTCOPY;
    let aborting = try_join(domain.abort_job(), domain.abort_job_with(flags));
    let aborted = timeout(SOON, aborting).await;
    aborted.expect("they wait as well").unwrap();
    assert!(waiting.now_or_never().is_none());
    let last = [
        remote::DOMAIN_GET_STATE,
        remote::DOMAIN_GET_STATE,
        remote::DOMAIN_ABORT_JOB,
        remote::DOMAIN_ABORT_JOB_FLAGS,
    ];
    let last = last.map(|procedure| procedure.number.cast_unsigned());
    assert!(daemon.procedures().ends_with(&last));
}
