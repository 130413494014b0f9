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

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Encodes arguments.
pub(crate) fn encode<T: Serialize>(arguments: &T) -> Result<Vec<u8>, Error> {
    libvirt_xdr::to_bytes(arguments).map_err(Error::Encode)
}

/// Decodes a result.
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Error> {
    libvirt_xdr::from_bytes(payload).map_err(Error::Decode)
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
