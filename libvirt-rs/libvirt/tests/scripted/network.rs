//! Calls about networks, of daemons old and new.

use libvirt::{
    Connect, Error,
    raw::{
        api::{NetworkUpdateCommand, NetworkUpdateFlags, NetworkUpdateSection},
        remote::{
            CONNECT_SUPPORTS_FEATURE, ConnectSupportsFeatureArgs, NETWORK_LOOKUP_BY_NAME,
            NETWORK_UPDATE, NetworkUpdateArgs,
        },
    },
};

use crate::script::{Answer, Scripted, is, text, words};

/// That command and section of an update are in their order.
const IN_ORDER: i32 = 16;

/// A daemon with a network, and with this to say about the order.
fn daemon(in_order: Option<u32>) -> Scripted {
    Scripted::unix(move |procedure, arguments| {
        if is(procedure, &NETWORK_LOOKUP_BY_NAME) {
            return Answer::Say([text("blue"), vec![7; 16]].concat());
        }
        if !is(procedure, &CONNECT_SUPPORTS_FEATURE) {
            return Answer::Usual;
        }
        let asked: ConnectSupportsFeatureArgs = libvirt_xdr::from_bytes(arguments).unwrap();
        match in_order {
            _ if asked.feature != IN_ORDER => Answer::Say(words(&[0])),
            Some(supported) => Answer::Say(words(&[supported])),
            None => Answer::Refuse,
        }
    })
}

async fn update(daemon: &Scripted) -> Result<(), Error> {
    let connect = Connect::builder(&daemon.uri).keepalive(None).open().await?;
    let network = connect.network_by_name("blue").await?;
    let updated = network
        .update(
            NetworkUpdateCommand::AddLast,
            NetworkUpdateSection::DnsHost,
            -1,
            "<host/>",
            NetworkUpdateFlags::AFFECT_LIVE,
        )
        .await;
    connect.close().await;
    updated
}

fn updates(daemon: &Scripted) -> Vec<NetworkUpdateArgs> {
    let calls = daemon.calls().into_iter();
    calls
        .filter(|call| is(call.procedure, &NETWORK_UPDATE))
        .map(|call| libvirt_xdr::from_bytes(&call.arguments).unwrap())
        .collect()
}

#[tokio::test]
async fn an_older_daemon_is_told_command_and_section_the_way_it_takes_them() {
    let (command, section) = (
        NetworkUpdateCommand::AddLast.as_raw().cast_unsigned(),
        NetworkUpdateSection::DnsHost.as_raw().cast_unsigned(),
    );
    for (in_order, expected) in [(1, (command, section)), (0, (section, command))] {
        let daemon = daemon(Some(in_order));
        update(&daemon).await.unwrap();
        let [sent] = &updates(&daemon)[..] else {
            panic!("{:?}", daemon.procedures());
        };
        assert_eq!((sent.command, sent.section), expected);
        assert_eq!((sent.net.name.as_str(), sent.parent_index), ("blue", -1));
        assert_eq!((sent.xml.as_str(), sent.flags), ("<host/>", 1));
    }
}

#[tokio::test]
async fn nothing_is_changed_where_the_order_is_not_known() {
    let daemon = daemon(None);
    let error = update(&daemon).await.unwrap_err();
    assert!(error.remote().is_some(), "{error:?}");
    assert!(updates(&daemon).is_empty());
}
