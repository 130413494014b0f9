//! Reads XDR interface files and generates the typed libvirt procedures.
