//! The vbridge guest agent: gRPC services on a virtio-serial port.
