//! An interface file as it is written: every definition in order, with its place and its comments.
//!
//! Nothing is looked up or computed here; [`Model`](crate::Model) does that.

use std::fmt;

use crate::error::{Diagnostic, Source, Span};

/// A whole file.
#[derive(Debug, Clone, PartialEq)]
pub struct Specification {
    /// The definitions.
    pub items: Vec<Item>,
    /// Every comment, also those that stand before nothing.
    pub comments: Vec<Comment>,
    pub(crate) source: Source,
}

impl Specification {
    /// Says what is wrong at a place in this file.
    pub fn diagnose(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        self.source.diagnose(span, message)
    }
}

/// One definition, or a line for the C compiler.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The comments before it.
    pub comments: Vec<Comment>,
    /// From its first word to its semicolon.
    pub span: Span,
    /// What it is.
    pub kind: ItemKind,
}

/// What an item is.
#[derive(Debug, Clone, PartialEq)]
pub enum ItemKind {
    /// `%…`: a line that rpcgen hands through to C.
    PassThrough(String),
    /// `const NAME = value;`
    Constant(Name, Expression),
    /// `typedef declaration;`
    Typedef(Declaration),
    /// `enum name { … };`
    Enum(Name, Vec<Member>),
    /// `struct name { … };`
    Struct(Name, Vec<Declaration>),
    /// `union name switch (…) { … };`
    Union(Name, Box<UnionBody>),
    /// `program NAME { … } = number;`
    Program(Program),
}

/// A name where it is given or used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// A comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// What stands between its delimiters.
    pub text: String,
    /// Where it stands, with its delimiters.
    pub span: Span,
    /// It begins with `/**`: the kind that carries annotations.
    pub documents: bool,
    /// It stands behind something in the same line, and so says nothing of what comes next.
    pub trails: bool,
}

/// A member of an enum.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The comments before it.
    pub comments: Vec<Comment>,
    /// Its name.
    pub name: Name,
    /// Its value; without one it is the last one's plus one, as in C.
    pub value: Option<Expression>,
}

/// A type with a name: a field, an arm of a union, or what a typedef defines.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// The comments before it.
    pub comments: Vec<Comment>,
    /// Its name.
    pub name: Name,
    /// The type.
    pub specifier: Specifier,
    /// How often the type is there.
    pub form: Form,
}

/// How often a declared type is there.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// `T x`
    Plain,
    /// `T *x`
    Optional,
    /// `T x[n]`
    Fixed(Expression),
    /// `T x<max>` or `T x<>`
    Variable(Option<Expression>),
}

/// A type where it is used.
#[derive(Debug, Clone, PartialEq)]
pub struct Specifier {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: SpecifierKind,
}

/// What a type is.
#[derive(Debug, Clone, PartialEq)]
pub enum SpecifierKind {
    /// One of the language.
    Primitive(Primitive),
    /// `opaque`: bytes, always an array.
    Opaque,
    /// `string`: text, always an array.
    Text,
    /// One that is defined elsewhere.
    Named(String),
    /// `enum { … }` on the spot.
    Enum(Vec<Member>),
    /// `struct { … }` on the spot.
    Struct(Vec<Declaration>),
    /// `union switch (…) { … }` on the spot.
    Union(Box<UnionBody>),
}

/// The types of the language that stand for one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Primitive {
    /// `int`
    Int,
    /// `unsigned int`
    UnsignedInt,
    /// `hyper`
    Hyper,
    /// `unsigned hyper`
    UnsignedHyper,
    /// `short`: four bytes on the wire.
    Short,
    /// `unsigned short`: four bytes on the wire.
    UnsignedShort,
    /// `char`: four bytes on the wire.
    Char,
    /// `unsigned char`: four bytes on the wire.
    UnsignedChar,
    /// `float`
    Float,
    /// `double`
    Double,
    /// `bool`
    Bool,
}

/// What stands behind a union's name.
#[derive(Debug, Clone, PartialEq)]
pub struct UnionBody {
    /// What is in `switch (…)`.
    pub discriminant: Declaration,
    /// The cases.
    pub arms: Vec<Arm>,
    /// What any other value of the discriminant stands for; without it, there is none.
    pub default: Option<ArmBody>,
}

/// One or more cases and what they stand for.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// The values of the discriminant.
    pub labels: Vec<Expression>,
    /// What comes with them.
    pub body: ArmBody,
}

/// A declaration, or nothing if it is `void`.
pub type ArmBody = Option<Declaration>;

/// `program NAME { versions } = number;`
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// Its name.
    pub name: Name,
    /// Its versions.
    pub versions: Vec<Version>,
    /// Its number.
    pub number: Expression,
}

/// `version NAME { procedures } = number;`
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Its name.
    pub name: Name,
    /// Its procedures.
    pub procedures: Vec<Procedure>,
    /// Its number.
    pub number: Expression,
}

/// `result NAME(arguments) = number;`
#[derive(Debug, Clone, PartialEq)]
pub struct Procedure {
    /// The comments before it.
    pub comments: Vec<Comment>,
    /// The type of its result, if it is not `void`.
    pub result: Option<Specifier>,
    /// Its name.
    pub name: Name,
    /// The types of its arguments.
    pub arguments: Vec<Specifier>,
    /// Its number.
    pub number: Expression,
}

/// A constant expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: ExpressionKind,
}

/// What an expression is.
#[derive(Debug, Clone, PartialEq)]
pub enum ExpressionKind {
    /// A number, and how it is written.
    Number(u64, String),
    /// A constant or a member of an enum.
    Name(String),
    /// `-x`
    Negative(Box<Expression>),
    /// `x + y` and its like.
    Binary(Operator, Box<Expression>, Box<Expression>),
}

/// What stands between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `|`
    Or,
    /// `<<`
    ShiftLeft,
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
}

// === impl Primitive ===

impl Primitive {
    /// As an interface file has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::UnsignedInt => "unsigned int",
            Self::Hyper => "hyper",
            Self::UnsignedHyper => "unsigned hyper",
            Self::Short => "short",
            Self::UnsignedShort => "unsigned short",
            Self::Char => "char",
            Self::UnsignedChar => "unsigned char",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bool => "bool",
        }
    }
}

// === impl Operator ===

impl Operator {
    /// All of them, in levels: those of a later level bind tighter.
    pub(crate) const LEVELS: [&'static [Self]; 4] = [
        &[Self::Or],
        &[Self::ShiftLeft],
        &[Self::Add, Self::Subtract],
        &[Self::Multiply, Self::Divide],
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Or => "|",
            Self::ShiftLeft => "<<",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
        }
    }

    fn level(self) -> usize {
        match self {
            Self::Or => 0,
            Self::ShiftLeft => 1,
            Self::Add | Self::Subtract => 2,
            Self::Multiply | Self::Divide => 3,
        }
    }
}

// === impl Expression ===

impl fmt::Display for Expression {
    /// As an interface file has it, with the parentheses that it needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

impl Expression {
    fn write(&self, f: &mut fmt::Formatter<'_>, level: usize) -> fmt::Result {
        match &self.kind {
            ExpressionKind::Number(_, text) | ExpressionKind::Name(text) => f.write_str(text),
            ExpressionKind::Negative(of) => {
                f.write_str("-")?;
                of.write(f, Operator::LEVELS.len())
            }
            ExpressionKind::Binary(operator, left, right) => {
                let own = operator.level();
                if own < level {
                    f.write_str("(")?;
                }
                left.write(f, own)?;
                write!(f, " {} ", operator.as_str())?;
                // `a - b - c` is `(a - b) - c`.
                right.write(f, own + 1)?;
                if own < level {
                    f.write_str(")")?;
                }
                Ok(())
            }
        }
    }
}
