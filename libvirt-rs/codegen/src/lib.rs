//! From XDR interface files to Rust: the types and procedures of libvirt's RPC, or of any protocol that is written down
//! in the language of RFC 4506 and RFC 5531.
//!
//! ```text
//!              parse                  Model::new                  generate
//!  remote.x ──────────▶ Specification ───────────▶ Model ─────────────────────────▶ remote.rs
//!           syntax:                   meaning:       │       types, codecs,
//!           every definition with     names looked   │       tables of procedures,
//!           its place and comments    up, constants  │       a client's methods
//!                ▲                    computed       │
//!                └───────────────────────────────────┘
//!                          render: one layout
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `parser` | text to [`ast`]: tokens, then the grammar, with errors that show the place |
//! | [`ast`] | a file as it is written |
//! | [`model`] | a file as it is meant, and how it becomes so |
//! | `render` | a model as a file again |
//! | `generate` | a model as Rust |
//! | `names` | how names look in Rust |
//! | `compile` | all of it, for a build script |
//! | [`limits`] | how long and how deep a file may be |
//!
//! Generated code stands on `libvirt_xdr` for its wire format and is meant to be `include!`d. For the whole of libvirt,
//! a build script calls [`compile`]; step by step it goes like this:
//!
//! ```
//! use libvirt_codegen::{Model, Options, generate, parse};
//!
//! # fn main() -> Result<(), libvirt_codegen::Error> {
//! let text = "
//!     const NAME_MAX = 64;
//!     struct remote_nonnull_domain {
//!         string name<NAME_MAX>;
//!         opaque uuid[VIR_UUID_BUFLEN];
//!         int id;
//!     };
//! ";
//! let options = Options::libvirt();
//! let model = Model::new(&parse(text)?, &options)?;
//! let code = generate(&model, &options)?;
//! assert!(code.contains("pub struct RemoteNonnullDomain {"));
//! assert!(code.contains("pub uuid: [u8; 16],"));
//! assert!(code.contains(r#"0 name "name" xdr::Text<64>;"#));
//!
//! let error = parse("struct remote_domain {\n    int id\n};").unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "3:1: expected `;`, found `}`\n    3 | };\n      | ^"
//! );
//! # Ok(())
//! # }
//! ```
//!
//! # Annotations
//!
//! Lines in a comment of the kind `/** … */` say what the language has no words for. The first seven are libvirt's own,
//! the others this project's:
//!
//! | annotation | where | what it says |
//! |---|---|---|
//! | `@generate: both` | procedure | for which side libvirt generates code |
//! | `@priority: high` | procedure | which workers of the server serve it |
//! | `@readstream: 1`, `@writestream: 1` | procedure | a stream follows the call; the place of the C function's parameter |
//! | `@sparseflag: NAME` | procedure | with this flag the stream has holes |
//! | `@acl: domain:read` | procedure | an access right that the server checks, with a condition perhaps |
//! | `@aclfilter: domain:getattr` | procedure | the right that an entry of a list needs to be in the reply |
//! | `@stream: both` | procedure | which way the stream goes, where the parameters don't tell |
//! | `@fds: reply` | procedure | where file descriptors travel: `call`, `reply`, `both` |
//! | `@event` | procedure | the server sends it unasked |
//! | `@function: virDomainCreate` | procedure | the function of the C library |
//! | `@since: 1.2.3` | anything | the first version that had it |
//! | `@flags` | enum | its members are bits |

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

/// The code in the README is compiled, and run where it can be.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
