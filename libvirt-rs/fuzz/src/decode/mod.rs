//! Payloads: what the daemon's replies, errors and events hold.
//!
//! The input's first byte chooses the type. For events, two more give the procedure's number. The rest is the payload.
//!
//! A payload that is decoded is encoded again, and has to be the same bytes: one value has one encoding. The exception
//! is C's `char`, whose sign the machine decides, and which is read either way and written with its sign.

mod events;
mod rich;

use std::fmt::Debug;

use libvirt::raw::{admin, qemu, remote, virnet};
use libvirt_xdr::{Error, from_prefix, to_bytes};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    limits::{BASE, DECODED, RESERVED},
    memory,
};

/// Decodes one payload, and says whether it was one.
type Check = fn(&[u8]) -> bool;

/// The types, by the input's first byte. New ones are added at the end, or the seeds would mean something else.
const CHECKS: &[Check] = &[
    rich::check,
    events::remote,
    events::qemu,
    value::<virnet::VirNetMessageError>,
    value::<virnet::VirNetMessageHeader>,
    value::<remote::ConnectListAllDomainsRet>,
    value::<remote::ConnectGetAllDomainStatsRet>,
    value::<remote::DomainStatsRecord>,
    value::<remote::DomainGetGuestInfoRet>,
    value::<remote::DomainGetFsinfoRet>,
    value::<remote::DomainInterfaceAddressesRet>,
    value::<remote::NetworkGetDhcpLeasesRet>,
    value::<remote::ConnectGetCpuModelNamesRet>,
    value::<remote::DomainMigrateFinish3ParamsArgs>,
    value::<remote::AuthListRet>,
    with_chars::<remote::NodeGetInfoRet>,
    with_chars::<remote::NodeGetSecurityModelRet>,
    with_chars::<remote::AuthSaslStartRet>,
    value::<admin::ServerListClientsRet>,
    value::<admin::ServerGetThreadpoolParametersRet>,
    value::<qemu::DomainAgentCommandRet>,
    rich::borrowed,
];

/// Decodes the input, and says whether it was a payload of its type.
///
/// # Panics
/// A promise was broken.
pub fn run(input: &[u8]) -> bool {
    let Some((&which, payload)) = input.split_first() else {
        return false;
    };
    let check = CHECKS[usize::from(which) % CHECKS.len()];
    // The one type that contains itself has its own bound.
    let limit = match usize::from(which) % CHECKS.len() {
        0 => rich::memory(payload.len()),
        _ => BASE + RESERVED + DECODED * payload.len(),
    };
    memory::bounded(limit, || check(payload))
}

/// A type whose values have one encoding.
fn value<T: Serialize + DeserializeOwned + Debug>(payload: &[u8]) -> bool {
    let Some((encoding, read)) = again::<T>(payload) else {
        return false;
    };
    assert!(encoding == read, "{encoding:x?} was read from {read:x?}");
    true
}

/// A type with `char`s in it.
fn with_chars<T: Serialize + DeserializeOwned + Debug>(payload: &[u8]) -> bool {
    let Some((encoding, read)) = again::<T>(payload) else {
        return false;
    };
    let same = encoding.len() == read.len()
        && encoding
            .chunks(4)
            .zip(read.chunks(4))
            .all(|(now, before)| {
                now == before || matches!((now, before), ([0xff, 0xff, 0xff, a], [0, 0, 0, b]) if a == b && *a >= 0x80)
            });
    assert!(same, "{encoding:x?} was read from {read:x?}");
    // Written once, it is the one encoding.
    value::<T>(&encoding)
}

/// The encoding of what a payload begins with, and the bytes that it was read from.
fn again<T: Serialize + DeserializeOwned + Debug>(payload: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    match from_prefix::<T>(payload) {
        Ok((value, rest)) => {
            let read = &payload[..payload.len() - rest.len()];
            Some((encode(&value), read))
        }
        Err(error) => {
            refused(&error, payload);
            None
        }
    }
}

fn encode<T: Serialize + Debug>(value: &T) -> Vec<u8> {
    match to_bytes(value) {
        Ok(bytes) => bytes,
        Err(error) => panic!("{value:?} was decoded but can't be encoded: {error}"),
    }
}

/// An error says where, and has a text that can be shown.
fn refused(error: &Error, payload: &[u8]) -> bool {
    let offset = error.offset();
    assert!(
        offset.is_some_and(|at| at <= payload.len()),
        "{error} is at {offset:?} of {} bytes",
        payload.len()
    );
    assert!(!error.to_string().is_empty());
    false
}
