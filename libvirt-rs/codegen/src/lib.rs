//! Reads XDR interface files and generates the typed libvirt procedures.

pub mod ast;
mod error;
pub mod limits;
pub mod model;
mod options;
mod parser;
mod render;

pub use error::{Diagnostic, Error, Span};
pub use model::Model;
pub use options::Options;
pub use parser::{parse, parse_file};
pub use render::render;
