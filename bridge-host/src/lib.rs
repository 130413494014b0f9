//! The vbridge bridge: every guest's gRPC services on a local port.
