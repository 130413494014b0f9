//! XDR (RFC 4506) over serde, for libvirt's wire protocol.
/// stub
#[derive(Debug, Clone, thiserror::Error)]
#[error("stub")]
pub struct Error;
