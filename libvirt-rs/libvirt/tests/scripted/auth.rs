//! Who this client says it is, and to whom: what leaves it, and what it refuses before anything does.

use libvirt::{
    Connect, Error,
    auth::{self, Credentials},
};

use crate::script::{AUTH_LIST, Answer, Scripted, text, words};

const AUTH_SASL_INIT: u32 = 67;
const AUTH_SASL_START: u32 = 68;

/// A way to authenticate, as AUTH_LIST has it.
const SASL: u32 = 1;

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
