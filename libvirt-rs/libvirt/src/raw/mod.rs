//! The protocol as it is: every type and every procedure, generated from the interface files in `proto`.
//!
//! | module | program |
//! |---|---|
//! | [`remote`] | hypervisors, domains, networks, storage, devices, secrets, filters |
//! | [`qemu`] | what only QEMU has: its monitor and the guest agent |
//! | [`lxc`] | what only LXC has: namespaces |
//! | [`admin`] | the daemon itself, over its admin socket |
//! | [`virnet`] | what all programs share: the error |
//! | [`api`] | the numbers of the API: states, flags, events, errors |
//!
//! Types have the names of the protocol without its prefix, so `remote_domain_get_info_args` is
//! [`remote::DomainGetInfoArgs`] and procedure `REMOTE_PROC_DOMAIN_GET_INFO` is
//! [`Remote::domain_get_info`](remote::Remote::domain_get_info).
//!
//! The `Debug` of a type that holds a password, a key, or what is said to QEMU's monitor or to a guest's agent shows nothing of
//! it. XML is shown as it is: a definition that was asked for with its secrets (`SECURE`) has them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::rpc::{Client, Procedure};

/// The version of every program that libvirt has.
const VERSION: u32 = 1;

/// A procedure by its program's number and its own: as the tables of a hypervisor's programs have it, or else one of which
/// only the numbers are known.
pub(crate) fn procedure(program: u32, number: i32) -> Procedure {
    let tables = [remote::PROCEDURES, qemu::PROCEDURES, lxc::PROCEDURES];
    tables
        .into_iter()
        .flatten()
        .find(|listed| (listed.program, listed.number) == (program, number))
        .copied()
        .unwrap_or(Procedure::unlisted(program, VERSION, number))
}

/// Encodes arguments. The daemon is written in C: of a string with a NUL in it, it would see the beginning, and do something
/// to another domain than the one that was meant.
pub(crate) fn encode<T: Serialize>(arguments: &T) -> Result<Vec<u8>, Error> {
    libvirt_xdr::to_bytes_for_c(arguments).map_err(Error::Encode)
}

/// Decodes a result.
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Error> {
    libvirt_xdr::from_bytes(payload).map_err(Error::Decode)
}

/// Encodes arguments, calls, and decodes the result: what the methods of a program do.
async fn call<A: Serialize, R: DeserializeOwned>(
    client: &Client,
    procedure: &Procedure,
    arguments: &A,
) -> Result<R, Error> {
    decode(&client.call(procedure, encode(arguments)?).await?)
}

macro_rules! program {
    ($(#[$doc:meta])* $module:ident, $(#[$client_doc:meta])* $client:ident) => {
        $(#[$doc])*
        pub mod $module {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($module), ".rs"));

            $(#[$client_doc])*
            #[derive(Debug, Clone)]
            pub struct $client(crate::rpc::Client);

            impl $client {
                /// Calls on this connection.
                pub fn new(client: crate::rpc::Client) -> Self {
                    Self(client)
                }

                /// The connection.
                pub fn client(&self) -> &crate::rpc::Client {
                    &self.0
                }
            }
        }
    };
}

program!(
    /// The main program: hypervisors, domains, networks, storage, devices, secrets and filters.
    remote,
    /// All procedures of the main program.
    Remote
);
program!(
    /// What only QEMU has.
    qemu,
    /// All procedures of the QEMU program.
    Qemu
);
program!(
    /// What only LXC has.
    lxc,
    /// All procedures of the LXC program.
    Lxc
);
program!(
    /// The daemon itself: its servers, clients, threads and logs, over the admin socket.
    admin,
    /// All procedures of the admin program.
    Admin
);

/// What all programs share.
pub mod virnet {
    include!(concat!(env!("OUT_DIR"), "/virnet.rs"));
}

/// The numbers of libvirt's API: states, reasons, flags, events and errors.
pub mod api {
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}

#[cfg(test)]
mod tests {
    use super::{encode, lxc, procedure, qemu, remote};

    #[test]
    fn a_procedure_is_found_by_its_numbers_and_one_that_is_not_listed_has_no_more_than_those() {
        for listed in [remote::PROCEDURES, qemu::PROCEDURES, lxc::PROCEDURES]
            .into_iter()
            .flatten()
        {
            assert_eq!(procedure(listed.program, listed.number), *listed);
        }
        let newer = procedure(remote::REMOTE_PROGRAM, 9_999);
        assert_eq!(
            (newer.program, newer.version, newer.number),
            (remote::REMOTE_PROGRAM, 1, 9_999)
        );
        assert_eq!(newer.stream, None);
    }

    /// In bytes and in texts.
    const SECRET: &str = "hunter2";

    #[test]
    fn a_string_that_the_daemon_would_cut_at_a_nul_is_refused_with_its_field() {
        let named = |name: &str| remote::DomainCreateArgs {
            dom: remote::NonnullDomain {
                name: name.to_owned(),
                ..Default::default()
            },
        };
        encode(&named("web")).unwrap();
        let error = encode(&named("web\0-of-another")).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            source.starts_with("dom.name: byte 3 of the string is NUL"),
            "{source}"
        );
        // What is no string may hold any byte.
        let secret = remote::NonnullSecret::default();
        let (value, flags) = (b"\0key".to_vec(), 0);
        let value = remote::SecretSetValueArgs {
            secret,
            value,
            flags,
        };
        encode(&value).unwrap();
    }

    #[test]
    fn no_debug_of_an_argument_or_a_result_shows_a_secret() {
        let bytes = SECRET.as_bytes().to_vec();
        let chars: Vec<i8> = SECRET.bytes().map(u8::cast_signed).collect();
        let text = || SECRET.to_owned();
        let dom = || remote::NonnullDomain::default();
        let secret = remote::NonnullSecret::default();
        let shown = [
            format!(
                "{:?}",
                remote::AuthSaslStartArgs {
                    mech: text(),
                    nil: 0,
                    data: chars.clone()
                }
            ),
            format!(
                "{:?}",
                remote::AuthSaslStartRet {
                    complete: 1,
                    nil: 0,
                    data: chars.clone()
                }
            ),
            format!(
                "{:?}",
                remote::AuthSaslStepArgs {
                    nil: 0,
                    data: chars.clone()
                }
            ),
            format!(
                "{:?}",
                remote::AuthSaslStepRet {
                    complete: 1,
                    nil: 0,
                    data: chars.clone()
                }
            ),
            format!(
                "{:#?}",
                remote::SecretSetValueArgs {
                    secret,
                    value: bytes.clone(),
                    flags: 0
                }
            ),
            format!(
                "{:#?}",
                remote::SecretGetValueRet {
                    value: bytes.clone()
                }
            ),
            format!(
                "{:?}",
                remote::DomainSetUserPasswordArgs {
                    dom: dom(),
                    user: None,
                    password: Some(text()),
                    flags: 0,
                }
            ),
            format!(
                "{:?}",
                remote::DomainSetLaunchSecurityStateArgs {
                    dom: dom(),
                    params: crate::Params::new().with("sev-secret", SECRET).to_raw(),
                    flags: 0,
                }
            ),
            format!(
                "{:?}",
                remote::DomainSendKeyArgs {
                    dom: dom(),
                    codeset: 0,
                    holdtime: 0,
                    keycodes: vec![104, 117],
                    flags: 0,
                }
            ),
            format!(
                "{:?}",
                qemu::DomainMonitorCommandArgs {
                    dom: dom(),
                    cmd: text(),
                    flags: 0
                }
            ),
            format!("{:?}", qemu::DomainMonitorCommandRet { result: text() }),
            format!(
                "{:?}",
                qemu::DomainMonitorCommandWithFilesArgs {
                    dom: dom(),
                    cmd: text(),
                    flags: 0
                }
            ),
            format!(
                "{:?}",
                qemu::DomainMonitorCommandWithFilesRet { result: text() }
            ),
            format!(
                "{:?}",
                qemu::DomainAgentCommandArgs {
                    dom: dom(),
                    cmd: text(),
                    timeout: 0,
                    flags: 0
                }
            ),
            format!(
                "{:?}",
                qemu::DomainAgentCommandRet {
                    result: Some(text())
                }
            ),
        ];
        for shown in shown {
            let (name, rest) = shown.split_once(' ').unwrap();
            assert!(!name.is_empty() && rest == "{ .. }", "{shown}");
        }
    }
}
