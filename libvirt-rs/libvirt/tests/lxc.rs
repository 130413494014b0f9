//! The program that only LXC has: its one procedure brings file descriptors.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;

use libvirt::Error;
use libvirt::raw::api::ErrorNumber;
use libvirt::raw::lxc::{DomainOpenNamespaceArgs, Lxc};
use libvirt::raw::remote::NonnullDomain;
use libvirt::rpc::KeepaliveConfig;
use support::{CALL, OK, error_payload, text, words};

/// `LXC_PROGRAM`.
const PROGRAM: u32 = 0x0006_8000;
const OPEN_NAMESPACE: u32 = 1;
const UUID: [u8; 16] = *b"0123456789abcdef";

fn container() -> DomainOpenNamespaceArgs {
    let dom = NonnullDomain {
        name: "box".to_owned(),
        uuid: UUID,
        id: 7,
    };
    DomainOpenNamespaceArgs { dom, flags: 0 }
}

/// What stands for a namespace.
fn file(content: &str) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file.rewind().unwrap();
    file.into()
}

#[tokio::test]
async fn a_containers_namespaces_come_as_descriptors_in_their_order() {
    let (client, mut daemon) = support::connect();
    let lxc = Lxc::new(client.clone());
    let container = container();
    let (opened, call) = tokio::join!(lxc.domain_open_namespace(&container), async {
        let call = daemon.packet().await;
        let namespaces = ["mnt", "net", "pid"].map(file);
        daemon
            .answer_with_descriptors(&call, b"", &namespaces)
            .await;
        call
    });
    assert_eq!(
        (call.program, call.procedure, call.kind, call.status),
        (PROGRAM, OPEN_NAMESPACE, CALL, OK)
    );
    let mut arguments = text("box");
    arguments.extend(UUID);
    arguments.extend(words(&[7, 0]));
    assert_eq!(call.payload, arguments);
    let read = |namespace| {
        let mut content = String::new();
        File::from(namespace).read_to_string(&mut content).unwrap();
        content
    };
    let opened: Vec<String> = opened.unwrap().into_iter().map(read).collect();
    assert_eq!(opened, ["mnt", "net", "pid"]);
    assert_eq!((client.unfinished(), client.ignored_packets()), (0, 0));
}

#[tokio::test]
async fn a_daemon_without_containers_says_so() {
    let (client, daemon) = support::connect();
    let lxc = Lxc::new(client.clone());
    let daemon = tokio::spawn(daemon.serve(|_| {
        let said = "Cannot find program 425984 version 1";
        Err(error_payload(ErrorNumber::Rpc.as_raw(), 7, said))
    }));
    let error = lxc.domain_open_namespace(&container()).await.unwrap_err();
    assert!(error.is(ErrorNumber::Rpc), "{error}");
    assert!(error.to_string().contains("program 425984"), "{error}");
    client.close().await;
    daemon.await.unwrap();
}

#[tokio::test]
async fn a_container_is_not_entered_where_no_descriptor_can_travel() {
    let (client, mut daemon) = support::connect_bytes(KeepaliveConfig::default());
    let lxc = Lxc::new(client.clone());
    let error = lxc.domain_open_namespace(&container()).await.unwrap_err();
    assert!(
        matches!(error, Error::DescriptorsNeedUnixSocket { .. }),
        "{error}"
    );
    client.close().await;
    assert!(daemon.rest().await.is_empty(), "it was asked nevertheless");
}
