//! How values of the wire and of the handles are shown: as the reference shows the C library's.

use std::fmt::Write as _;

use anyhow::Result;
use libvirt::{
    Code, Domain, DomainCheckpoint, DomainSnapshot, Enumeration, Interface, Network, NetworkPort,
    NodeDevice, NwFilter, NwFilterBinding, Params, Secret, StoragePool, StorageVol, Value as Typed,
    Version,
    raw::remote::{
        NonnullDomain, NonnullDomainCheckpoint, NonnullDomainSnapshot, NonnullInterface,
        NonnullNetwork, NonnullNetworkPort, NonnullNodeDevice, NonnullNwfilter,
        NonnullNwfilterBinding, NonnullSecret, NonnullStoragePool, NonnullStorageVol, TypedParam,
        TypedParamValue, Uuid,
    },
    rpc::{Chunk, RawStream},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Something that is shown, such as a handle by its fields.
pub(super) trait Show {
    fn show(&self) -> Value;
}

macro_rules! show {
    ($($object:ident |$it:ident| $shown:tt)*) => {
        $(impl Show for $object {
            fn show(&self) -> Value {
                let $it = self;
                json!($shown)
            }
        })*
    };
}

show! {
    NonnullDomain |it| { "name": it.name, "uuid": uuid(&it.uuid), "id": it.id }
    NonnullNetwork |it| { "name": it.name, "uuid": uuid(&it.uuid) }
    NonnullNetworkPort |it| { "net": it.net.show(), "uuid": uuid(&it.uuid) }
    NonnullInterface |it| { "name": it.name, "mac": it.mac }
    NonnullStoragePool |it| { "name": it.name, "uuid": uuid(&it.uuid) }
    // Its pool's name is in the handle as well, but the C library does not tell it.
    NonnullStorageVol |it| { "name": it.name, "key": it.key }
    NonnullNodeDevice |it| { "name": it.name }
    NonnullSecret |it| { "uuid": uuid(&it.uuid), "usageType": it.usage_type, "usageID": it.usage_id }
    NonnullNwfilter |it| { "name": it.name, "uuid": uuid(&it.uuid) }
    NonnullNwfilterBinding |it| { "portdev": it.portdev, "filtername": it.filtername }
    NonnullDomainSnapshot |it| { "name": it.name, "dom": it.dom.show() }
    NonnullDomainCheckpoint |it| { "name": it.name, "dom": it.dom.show() }
}

impl Show for Version {
    fn show(&self) -> Value {
        json!(self.major * 1_000_000 + self.minor * 1_000 + self.release)
    }
}

impl<E: Enumeration> Show for Code<E> {
    fn show(&self) -> Value {
        json!(self.raw())
    }
}

impl Show for Params {
    fn show(&self) -> Value {
        let shown = self.iter().map(|(name, value)| {
            let value = match value {
                Typed::Int(value) => json!(value),
                Typed::UInt(value) => json!(value),
                Typed::Long(value) => json!(value),
                Typed::ULong(value) => json!(value),
                Typed::Double(value) => json!(value),
                Typed::Boolean(value) => json!(value),
                Typed::Text(value) => json!(value),
                other => json!(format!("{other:?}")),
            };
            (name.to_owned(), value)
        });
        Value::Object(shown.collect())
    }
}

macro_rules! show_handles {
    ($($handle:ident),*) => {
        $(impl Show for $handle {
            fn show(&self) -> Value {
                self.raw().show()
            }
        })*
    };
}

show_handles!(
    Domain,
    DomainSnapshot,
    DomainCheckpoint,
    Network,
    NetworkPort,
    Interface,
    StoragePool,
    StorageVol,
    NodeDevice,
    Secret,
    NwFilter,
    NwFilterBinding
);

/// A list of handles.
pub(super) fn each<T: Show>(them: &[T]) -> Value {
    them.iter().map(Show::show).collect()
}

/// A UUID as a text: 8-4-4-4-12 digits.
pub(super) fn uuid(bytes: &Uuid) -> String {
    let digits = hex(bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| &digits[range]);
    parts.join("-")
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // A String takes everything.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// A text in an array of `char`, which may be filled up with zeros.
pub(super) fn c_text(chars: &[i8]) -> String {
    let bytes = chars.iter().map(|char| char.cast_unsigned());
    let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Typed parameters by name, each as a value of its type.
pub(super) fn params(params: Vec<TypedParam>) -> Value {
    let shown = params.into_iter().map(|param| {
        let value = match param.value {
            TypedParamValue::Int(value) => json!(value),
            TypedParamValue::Uint(value) => json!(value),
            TypedParamValue::Llong(value) => json!(value),
            TypedParamValue::Ullong(value) => json!(value),
            TypedParamValue::Double(value) => json!(value),
            TypedParamValue::Boolean(value) => json!(value != 0),
            TypedParamValue::String(value) => json!(value),
        };
        (param.field, value)
    });
    Value::Object(shown.collect())
}

/// CPU maps that stand one behind another, so many bytes each.
pub(super) fn maps(all: &[u8], length: usize) -> Vec<String> {
    all.chunks(length.max(1)).map(hex).collect()
}

/// Takes a stream to its end: its size and digest stand for it.
pub(super) async fn received(mut stream: RawStream) -> Result<Value> {
    let (mut digest, mut size) = (Sha256::new(), 0);
    while let Some(chunk) = stream.chunk().await? {
        let Chunk::Data(data) = chunk else {
            anyhow::bail!("a stream that was not asked for holes has one");
        };
        digest.update(&data);
        size += data.len();
    }
    stream.finish().await?;
    Ok(json!({"size": size, "sha256": hex(&digest.finalize())}))
}
