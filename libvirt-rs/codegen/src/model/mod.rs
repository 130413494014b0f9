//! An interface file as it is meant: names looked up, constants computed, procedures with all that is known of them.
//!
//! | module | what it does |
//! |---|---|
//! | `resolve` | makes a model of a syntax tree |
//! | `constants` | computes constants, and finds names that are there twice |
//! | `docs` | reads the annotations in comments |
//! | `procedures` | makes a program of an enum of procedures |
//! | `graph` | finds types that contain themselves |

mod constants;
mod docs;
pub(crate) mod graph;
pub(crate) mod procedures;
mod resolve;

use std::collections::BTreeSet;

pub use crate::ast::Primitive;
use crate::{ast::Specification, error::Error, options::Options};

/// All that an interface file defines.
///
/// Anonymous bodies have become definitions of their own, named after the type and the field that they stand in.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Model {
    /// What the comment at the file's very begin says, line by line.
    pub head: Vec<String>,
    /// `const NAME = value;`, in the file's order.
    pub constants: Vec<Constant>,
    /// Typedefs, enums, structs and unions, in the file's order.
    pub types: Vec<TypeDefinition>,
    /// The programs: those of libvirt's kind, written as an enum of procedures, and those of RFC 5531.
    pub programs: Vec<Program>,
    /// The types that contain themselves, always behind a `*` or within an array of variable length.
    pub recursive: BTreeSet<String>,
}

/// A number, and how the file has it: `16384`, `0x20008086`, `REMOTE_STRING_MAX` or an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The number.
    pub number: i64,
    /// How it is written.
    pub text: String,
}

/// What a comment says of the definition behind it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Docs {
    /// The comment's lines without annotations.
    pub text: Vec<String>,
    /// `@since`: the version that had it first.
    pub since: Option<String>,
}

/// A constant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constant {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Its comment.
    pub docs: Docs,
}

/// A type with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeDefinition {
    /// Its name.
    pub name: String,
    /// Its comment.
    pub docs: Docs,
    /// What it is.
    pub kind: TypeKind,
}

/// What a defined type is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeKind {
    /// Another name.
    Typedef(Form),
    /// An enum.
    Enum(Enum),
    /// A struct.
    Struct(Vec<Field>),
    /// A union.
    Union(Box<Union>),
}

/// An enum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enum {
    /// Its members.
    pub members: Vec<Member>,
    /// `@flags`: the members are bits, and values are sets of them.
    pub flags: bool,
}

/// A member of an enum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Its comment.
    pub docs: Docs,
}

/// A field of a struct, the discriminant of a union, or what comes with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub form: Form,
    /// Its comment.
    pub docs: Docs,
}

/// A union.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Union {
    /// What tells the arms apart.
    pub discriminant: Field,
    /// The arms.
    pub arms: Vec<Arm>,
    /// What any other value stands for: nothing at all, a value that is `void`, or a field.
    pub default: Option<Option<Field>>,
}

/// An arm of a union.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    /// The values of the discriminant.
    pub labels: Vec<Value>,
    /// What comes with them; nothing if it is `void`.
    pub field: Option<Field>,
}

/// A type, and how often it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// `T x`
    Plain(Type),
    /// `T *x`
    Optional(Type),
    /// `T x[n]`
    Fixed(Type, Value),
    /// `T x<max>`, `T x<>`
    Variable(Type, Option<Value>),
    /// `string x<max>`, `string x<>`
    Text(Option<Value>),
    /// `opaque x[n]`
    FixedOpaque(Value),
    /// `opaque x<max>`, `opaque x<>`
    Opaque(Option<Value>),
}

/// A type where it is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Type {
    /// One of the language.
    Primitive(Primitive),
    /// One that is defined here or in an imported file.
    Named(String),
}

/// A program: procedures that have a number in common.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Program {
    /// Its name, as in `remote` of `remote_procedure`.
    pub name: String,
    /// How the file writes it.
    pub notation: Notation,
    /// Its number.
    pub number: u32,
    /// Its version.
    pub version: u32,
    /// Its procedures, in the file's order.
    pub procedures: Vec<Procedure>,
    /// The comment of the enum.
    pub docs: Docs,
}

/// How a file writes a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notation {
    /// libvirt's way: an enum whose name ends in `procedure`, beside constants for the numbers of program and version.
    Enum {
        /// The enum's name.
        name: String,
        /// What the procedures' names begin with, as in `REMOTE_PROC_`.
        prefix: String,
    },
    /// `program NAME { version NAME { … } = version; } = number;`
    Block {
        /// The version's name.
        version: String,
    },
}

/// A procedure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Procedure {
    /// Its name, as in `REMOTE_PROC_DOMAIN_CREATE`.
    pub name: String,
    /// Its number within the program.
    pub number: i32,
    /// The types of its arguments; libvirt's procedures have at most one.
    pub arguments: Vec<Type>,
    /// The type of its result.
    pub result: Option<Type>,
    /// The type of the message that the server sends unasked.
    pub message: Option<Type>,
    /// `@event`: the server sends it unasked. So it is if there is a type for the message.
    pub event: bool,
    /// `@priority`: which workers of the server serve it.
    pub priority: Priority,
    /// `@acl`: the access rights that the server checks, as `object:permission` with an optional condition.
    pub access: Vec<String>,
    /// `@aclfilter`: the access rights for an entry of a list to be in the reply.
    pub filters: Vec<String>,
    /// Who sends data in the stream that follows a call, if one does.
    pub stream: Option<StreamDirection>,
    /// `@readstream`: the parameter of the C function that is the stream, for one to read from.
    pub read_stream: Option<u32>,
    /// `@writestream`: the same, for one to write to.
    pub write_stream: Option<u32>,
    /// `@sparseflag`: the flag with which a caller asks for holes in the stream.
    pub sparse_flag: Option<String>,
    /// `@fds`: where file descriptors travel.
    pub fds: Fds,
    /// `@generate`: for which side libvirt generates code.
    pub generate: Option<String>,
    /// `@function`: the function of the C library that it is the wire form of.
    pub function: Option<String>,
    /// Its comment.
    pub docs: Docs,
}

/// Which workers of a server serve a procedure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// Also those that are kept free of procedures which may block.
    High,
    /// The ordinary ones.
    #[default]
    Low,
}

/// Who sends data in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamDirection {
    /// The server.
    Read,
    /// The caller.
    Write,
    /// Both.
    Both,
}

/// Where file descriptors travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fds {
    /// Nowhere.
    #[default]
    None,
    /// With the call.
    Call,
    /// With the reply.
    Reply,
    /// With both.
    Both,
}

// === impl Model ===

impl Model {
    /// Looks up and computes what a file has written down.
    ///
    /// # Errors
    /// A name is unknown or there twice, a constant can't be computed or has no place where it stands, two procedures
    /// have one number, a type contains itself without end, or an annotation is unknown. The error has the place.
    pub fn new(specification: &Specification, options: &Options) -> Result<Self, Error> {
        resolve::resolve(specification, options)
    }

    /// A type that this file defines.
    pub fn definition(&self, name: &str) -> Option<&TypeDefinition> {
        self.types.iter().find(|definition| definition.name == name)
    }

    /// The value of a constant or of a member of an enum that this file defines.
    pub fn value(&self, name: &str) -> Option<i64> {
        let constants = self.constants.iter();
        let members = self
            .types
            .iter()
            .filter_map(|definition| match &definition.kind {
                TypeKind::Enum(of) => Some(&of.members),
                _ => None,
            });
        constants
            .map(|constant| (&constant.name, &constant.value))
            .chain(
                members
                    .flatten()
                    .map(|member| (&member.name, &member.value)),
            )
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.number)
    }
}

// === impl Form ===

impl Form {
    /// The type that is there, if it is neither text nor opaque.
    pub fn element(&self) -> Option<&Type> {
        match self {
            Self::Plain(of) | Self::Optional(of) | Self::Fixed(of, _) | Self::Variable(of, _) => {
                Some(of)
            }
            Self::Text(_) | Self::FixedOpaque(_) | Self::Opaque(_) => None,
        }
    }
}

// === impl Program ===

impl Program {
    /// What the names of this program's types begin with: `remote_`.
    pub fn type_prefix(&self) -> String {
        match &self.notation {
            Notation::Enum { name, .. } if name.ends_with("_procedure") => {
                format!("{}_", self.name)
            }
            Notation::Enum { .. } => self.name.clone(),
            Notation::Block { .. } => String::new(),
        }
    }

    /// What the names of this program's procedures begin with: `REMOTE_PROC_`.
    pub fn procedure_prefix(&self) -> &str {
        match &self.notation {
            Notation::Enum { prefix, .. } => prefix,
            Notation::Block { .. } => "",
        }
    }
}

// === impl Priority, StreamDirection, Fds: as annotations have them ===

impl Priority {
    pub(crate) const ALL: [(&'static str, Self); 2] = [("high", Self::High), ("low", Self::Low)];
}

impl StreamDirection {
    pub(crate) const ALL: [(&'static str, Self); 3] = [
        ("read", Self::Read),
        ("write", Self::Write),
        ("both", Self::Both),
    ];
}

impl Fds {
    pub(crate) const ALL: [(&'static str, Self); 3] = [
        ("call", Self::Call),
        ("reply", Self::Reply),
        ("both", Self::Both),
    ];
}
