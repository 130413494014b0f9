//! Reads XDR interface files and generates the typed libvirt procedures.

pub mod ast;
mod compile;
mod error;
mod generate;
pub mod limits;
pub mod model;
mod names;
mod options;
mod parser;
mod render;

pub use compile::{Input, compile, compile_to};
pub use error::{Diagnostic, Error, Span};
pub use generate::generate;
pub use model::Model;
pub use options::Options;
pub use parser::{parse, parse_file};
pub use render::render;
