//! XDR (RFC 4506) over serde, for libvirt's wire protocol.
