//! Sessions on a byte stream that has none.

mod port;

pub use port::{Port, PortRead};
