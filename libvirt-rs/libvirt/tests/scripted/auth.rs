//! Who this client says it is, and to whom: what leaves it, and what it refuses before anything does.

use libvirt::{
    Connect, Error,
    auth::{self, Credentials},
};

use crate::script::{AUTH_LIST, Answer, CONNECT_OPEN, Scripted, text, words};

const AUTH_SASL_INIT: u32 = 67;
const AUTH_SASL_START: u32 = 68;
const AUTH_POLKIT: u32 = 70;

/// Ways to authenticate, as AUTH_LIST has them.
const NONE: u32 = 0;
const SASL: u32 = 1;
const POLKIT: u32 = 2;

const PASSWORD: &str = "correct horse battery staple";

/// A daemon that offers these ways, and of SASL's mechanisms these; it lets in whoever tries.
fn script(ways: &'static [u32], mechanisms: &'static str) -> impl crate::script::Script {
    move |procedure, _: &[u8]| match procedure {
        AUTH_LIST => {
            let count = u32::try_from(ways.len()).unwrap();
            Answer::Say([words(&[count]), words(ways)].concat())
        }
        AUTH_SASL_INIT => Answer::Say(text(mechanisms)),
        // Complete, and no message.
        AUTH_SASL_START => Answer::Say(words(&[1, 1, 0])),
        AUTH_POLKIT => Answer::Say(words(&[1])),
        _ => Answer::Usual,
    }
}

async fn open(uri: &str) -> Result<Connect, Error> {
    let builder = Connect::builder(uri).keepalive(None);
    builder
        .credentials(Credentials::new("bob", PASSWORD))
        .open()
        .await
}

#[tokio::test]
async fn no_password_goes_over_a_port_in_the_clear_though_the_server_takes_nothing_else() {
    for parameter in ["", "?auth=sasl", "?auth=sasl.plain"] {
        let daemon = Scripted::tcp(script(&[SASL], "PLAIN")).await;
        let error = open(&format!("{}{parameter}", daemon.uri)).await;
        let error = error.expect_err(parameter);
        let Error::Auth(error) = error else {
            panic!("{error:?}");
        };
        assert!(
            matches!(*error, auth::Error::NotEncrypted { .. }),
            "{error:?}"
        );
        assert!(!error.to_string().contains(PASSWORD), "{error}");
        assert_eq!(daemon.procedures(), [AUTH_LIST, AUTH_SASL_INIT]);
        let sent: Vec<_> = daemon
            .calls()
            .into_iter()
            .flat_map(|call| call.arguments)
            .collect();
        assert!(sent.is_empty(), "{sent:?}");
    }
}

#[tokio::test]
async fn a_daemon_that_offers_less_than_the_uri_asks_for_is_refused() {
    for (asked, ways, offered) in [
        ("sasl", &[NONE][..], "none"),
        ("sasl", &[], "none"),
        ("sasl", &[POLKIT], "polkit"),
        ("sasl.scram-sha-256", &[NONE], "none"),
        ("polkit", &[NONE], "none"),
        ("polkit", &[SASL], "sasl"),
        ("none", &[SASL], "sasl"),
        ("none", &[POLKIT, SASL], "polkit, sasl"),
    ] {
        let daemon = Scripted::unix(script(ways, "PLAIN"));
        let error = open(&format!("{}&auth={asked}", daemon.uri)).await;
        let error = error.expect_err(asked);
        let said = error.to_string();
        for words in [
            "localhost does not offer",
            &format!("auth={asked} "),
            &format!("but {offered}:"),
            "leave auth= out",
        ] {
            assert!(said.contains(words), "{said:?} lacks {words:?}");
        }
        let Error::Auth(error) = error else {
            panic!("{error:?}");
        };
        assert!(
            matches!(*error, auth::Error::NotOffered { .. }),
            "{error:?}"
        );
        // The daemon learns nothing, not even who it is that goes.
        assert_eq!(daemon.procedures(), [AUTH_LIST], "{asked} {offered}");
    }
}

#[tokio::test]
async fn what_the_uri_asks_for_is_taken_wherever_it_stands_in_the_offer() {
    for (parameter, ways, called) in [
        (
            "&auth=sasl",
            &[SASL][..],
            &[AUTH_SASL_INIT, AUTH_SASL_START][..],
        ),
        (
            "&auth=sasl.plain",
            &[NONE, SASL],
            &[AUTH_SASL_INIT, AUTH_SASL_START],
        ),
        ("&auth=polkit", &[SASL, POLKIT], &[AUTH_POLKIT]),
        ("&auth=none", &[SASL, NONE], &[]),
        ("&auth=none", &[], &[]),
        // Who asks for nothing follows the daemon.
        ("", &[SASL], &[AUTH_SASL_INIT, AUTH_SASL_START]),
        ("", &[POLKIT, SASL], &[AUTH_POLKIT]),
        ("", &[NONE], &[]),
        ("", &[], &[]),
    ] {
        let daemon = Scripted::unix(script(ways, "PLAIN"));
        let connect = open(&format!("{}{parameter}", daemon.uri)).await;
        let procedures = daemon.procedures();
        let open = procedures.iter().position(|each| *each == CONNECT_OPEN);
        let open = open.unwrap_or_else(|| panic!("{parameter} {ways:?}: {connect:?}"));
        assert_eq!(procedures[0], AUTH_LIST);
        assert_eq!(&procedures[1..open], called, "{parameter} {ways:?}");
        connect.unwrap().close().await;
    }
}
