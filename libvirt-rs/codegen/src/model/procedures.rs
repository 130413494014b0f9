//! Programs: libvirt's enums of procedures, and RFC 5531's blocks.
//!
//! libvirt writes a program as constants and an enum, and ties the types of arguments, results and messages to a
//! procedure by their names:
//!
//! ```text
//! const REMOTE_PROGRAM = 0x20008086;
//! const REMOTE_PROTOCOL_VERSION = 1;
//!
//! enum remote_procedure {
//!     /** @priority: high */
//!     REMOTE_PROC_DOMAIN_GET_INFO = 16     /* remote_domain_get_info_args, remote_domain_get_info_ret */
//! };
//! ```
//!
//! Its younger files have the same in camel case: `virLockSpaceProtocolProcedure`, `virLockSpaceProtocolNewArgs`.

use std::collections::HashMap;

use crate::{
    ast::{self, ItemKind},
    error::Span,
};

use super::{
    Fds, Notation, Priority, Procedure, Program, StreamDirection, Type,
    constants::Scope,
    docs::Notes,
    resolve::{Fault, Resolver},
};

/// What stands between a program's name and a procedure's.
const PROCEDURE: &str = "_PROC_";

/// Whether an enum holds the procedures of a program.
pub(super) fn is_program(name: &ast::Name, members: &[ast::Member]) -> bool {
    let Some(base) = base(&name.text) else {
        return false;
    };
    let members = members.iter().map(|member| member.name.text.as_str());
    let mut prefixes = members.map(prefix);
    let first = prefixes.next().flatten();
    first.is_some_and(|first| {
        loosely(first.trim_end_matches(PROCEDURE)) == loosely(base)
            && prefixes.all(|prefix| prefix == Some(first))
    })
}

/// Adds the programs of an item.
pub(super) fn program(resolver: &mut Resolver<'_>, item: &ast::Item) -> Result<(), Fault> {
    match &item.kind {
        ItemKind::Enum(name, members) => {
            let program = of_enum(resolver, item, name, members)?;
            resolver.model.programs.push(program);
        }
        ItemKind::Program(program) => {
            resolver
                .names
                .define(&program.name.text, program.name.span)?;
            let docs = Notes::read(&item.comments).finish()?;
            let number = number(resolver, &program.number)?;
            // A version is known within its program, and a procedure within its version (RFC 5531, section 12.3).
            let mut names = Scope::default();
            let mut numbers = Numbers::default();
            for version in &program.versions {
                resolver.names.define_within(&mut names, &version.name)?;
                let number_of_version = self::number(resolver, &version.number)?;
                numbers.take(&version.name, number_of_version.into())?;
                let program = Program {
                    name: program.name.text.clone(),
                    notation: Notation::Block {
                        version: version.name.text.clone(),
                    },
                    number,
                    version: number_of_version,
                    procedures: of_block(resolver, version)?,
                    docs: docs.clone(),
                };
                resolver.model.programs.push(program);
            }
        }
        _ => {}
    }
    Ok(())
}

fn of_enum(
    resolver: &mut Resolver<'_>,
    item: &ast::Item,
    name: &ast::Name,
    members: &[ast::Member],
) -> Result<Program, Fault> {
    // `is_program` has found both.
    let base = base(&name.text).unwrap_or_default();
    let prefix = members
        .first()
        .and_then(|first| prefix(&first.name.text))
        .unwrap_or_default();
    let constants = prefix.trim_end_matches(PROCEDURE);
    let version = [
        format!("{constants}_PROTOCOL_VERSION"),
        format!("{constants}_PROGRAM_VERSION"),
    ];
    let number = constant(resolver, name.span, &[format!("{constants}_PROGRAM")])?;
    let version = constant(resolver, name.span, &version)?;
    let types = Types::new(resolver, base);
    let mut numbers = Numbers::default();
    let mut procedures = Vec::with_capacity(members.len());
    for member in members {
        let value = resolver.member_value(member)?.number;
        let own = &member.name.text[prefix.len()..];
        procedures.push(Procedure {
            number: numbers.of_procedure(&member.name, value)?,
            arguments: types.find(own, "args").into_iter().collect(),
            result: types.find(own, "ret"),
            message: types.find(own, "msg"),
            ..annotated(&member.name.text, &member.comments)?
        });
    }
    for procedure in &mut procedures {
        procedure.event |= procedure.message.is_some();
    }
    Ok(Program {
        name: base.to_owned(),
        notation: Notation::Enum {
            name: name.text.clone(),
            prefix: prefix.to_owned(),
        },
        number,
        version,
        procedures,
        docs: Notes::read(&item.comments).finish()?,
    })
}

fn of_block(resolver: &mut Resolver<'_>, version: &ast::Version) -> Result<Vec<Procedure>, Fault> {
    let mut names = Scope::default();
    let mut numbers = Numbers::default();
    let mut procedures = Vec::with_capacity(version.procedures.len());
    for procedure in &version.procedures {
        let name = &procedure.name;
        resolver.names.define_within(&mut names, name)?;
        let value = resolver.names.value(&procedure.number)?.number;
        let mut specified = |specifier| resolver.specified(&name.text, name.span, specifier);
        procedures.push(Procedure {
            number: numbers.of_procedure(name, value)?,
            arguments: procedure
                .arguments
                .iter()
                .map(&mut specified)
                .collect::<Result<_, _>>()?,
            result: procedure.result.as_ref().map(&mut specified).transpose()?,
            ..annotated(&name.text, &procedure.comments)?
        });
    }
    Ok(procedures)
}

/// A procedure with all that its comment says of it.
fn annotated(name: &str, comments: &[ast::Comment]) -> Result<Procedure, Fault> {
    let mut notes = Notes::read(comments);
    let read_stream = parameter(&mut notes, "readstream")?;
    let write_stream = parameter(&mut notes, "writestream")?;
    let implied = implied_stream(read_stream, write_stream);
    let stream = notes.choice("stream", &StreamDirection::ALL)?;
    let sides = ["none", "client", "server", "both"].map(|side| (side, side));
    Ok(Procedure {
        name: name.to_owned(),
        event: notes.flag("event")?,
        priority: notes
            .choice("priority", &Priority::ALL)?
            .unwrap_or_default(),
        access: rights(&mut notes, "acl")?,
        filters: rights(&mut notes, "aclfilter")?,
        stream: stream.or(implied),
        read_stream,
        write_stream,
        sparse_flag: word(&mut notes, "sparseflag")?,
        fds: notes.choice("fds", &Fds::ALL)?.unwrap_or_default(),
        generate: notes.choice("generate", &sides)?.map(str::to_owned),
        function: word(&mut notes, "function")?,
        docs: notes.finish()?,
        ..Procedure::default()
    })
}

/// Who sends data, as far as the parameters for streams tell. `@stream` overrides it: libvirt has no annotation for
/// streams that go both ways.
pub(crate) fn implied_stream(read: Option<u32>, write: Option<u32>) -> Option<StreamDirection> {
    match (read, write) {
        (None, None) => None,
        (Some(_), None) => Some(StreamDirection::Read),
        (None, Some(_)) => Some(StreamDirection::Write),
        (Some(_), Some(_)) => Some(StreamDirection::Both),
    }
}

fn parameter(notes: &mut Notes, key: &str) -> Result<Option<u32>, Fault> {
    let Some(annotation) = notes.one(key)? else {
        return Ok(None);
    };
    annotation.value.parse().map(Some).map_err(|_| {
        let message = format!(
            "`@{key}` is the number of a parameter, `{}` is none",
            annotation.value
        );
        Fault::new(annotation.span, message)
    })
}

fn word(notes: &mut Notes, key: &str) -> Result<Option<String>, Fault> {
    let Some(annotation) = notes.one(key)? else {
        return Ok(None);
    };
    let mut characters = annotation.value.chars();
    let is_name = !annotation.value.is_empty()
        && characters.all(|character| character.is_ascii_alphanumeric() || character == '_');
    if is_name {
        return Ok(Some(annotation.value));
    }
    let message = format!("`@{key}` is a name, `{}` is none", annotation.value);
    Err(Fault::new(annotation.span, message))
}

/// `object:permission`, with a condition perhaps, or `none`.
fn rights(notes: &mut Notes, key: &str) -> Result<Vec<String>, Fault> {
    let rights = notes.all(key).into_iter();
    rights
        .map(|annotation| {
            if annotation.value == "none" || annotation.value.contains(':') {
                return Ok(annotation.value);
            }
            let message = format!(
                "`@{key}` is `none` or `object:permission`, not `{}`",
                annotation.value
            );
            Err(Fault::new(annotation.span, message))
        })
        .collect()
}

/// The first of some constants that there is.
fn constant(resolver: &mut Resolver<'_>, place: Span, names: &[String]) -> Result<u32, Fault> {
    for name in names {
        let Some(value) = resolver.names.find(name, place)? else {
            continue;
        };
        return u32::try_from(value).map_err(|_| {
            let message = format!("`{name}` is {value}, which is no unsigned int");
            Fault::new(place, message)
        });
    }
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let message = format!("these procedures need a constant {}", names.join(" or "));
    Err(Fault::new(place, message))
}

fn number(resolver: &mut Resolver<'_>, expression: &ast::Expression) -> Result<u32, Fault> {
    let value = resolver.names.value(expression)?.number;
    u32::try_from(value).map_err(|_| {
        let message = format!("{value} is no unsigned int");
        Fault::new(expression.span, message)
    })
}

/// `remote` of `remote_procedure`.
fn base(name: &str) -> Option<&str> {
    let base = name.strip_suffix("_procedure");
    let base = base.or_else(|| name.strip_suffix("Procedure"));
    base.filter(|base| !base.is_empty())
}

/// `REMOTE_PROC_` of `REMOTE_PROC_DOMAIN_CREATE`.
fn prefix(procedure: &str) -> Option<&str> {
    let begin = procedure.find(PROCEDURE)?;
    let end = begin + PROCEDURE.len();
    (end < procedure.len()).then(|| &procedure[..end])
}

/// A name without what differs between `LOCK_SPACE`, `LockSpace` and `Lockspace`.
fn loosely(name: &str) -> String {
    let letters = name.chars().filter(|character| *character != '_');
    letters
        .map(|character| character.to_ascii_lowercase())
        .collect()
}

/// The types of a file, to be found by a procedure's name.
struct Types {
    base: String,
    by_name: HashMap<String, String>,
}

impl Types {
    fn new(resolver: &Resolver<'_>, base: &str) -> Self {
        let names = resolver.model.types.iter().map(|of| &of.name);
        Self {
            base: loosely(base),
            by_name: names.map(|name| (loosely(name), name.clone())).collect(),
        }
    }

    fn find(&self, procedure: &str, role: &str) -> Option<Type> {
        let name = format!("{}{}{role}", self.base, loosely(procedure));
        self.by_name.get(&name).cloned().map(Type::Named)
    }
}

/// Whose each number is.
#[derive(Default)]
struct Numbers(HashMap<i64, String>);

impl Numbers {
    fn of_procedure(&mut self, name: &ast::Name, value: i64) -> Result<i32, Fault> {
        let number = i32::try_from(value).map_err(|_| {
            let message = format!("a procedure's number is an int of 32 bits, {value} is none");
            Fault::new(name.span, message)
        })?;
        self.take(name, value)?;
        Ok(number)
    }

    fn take(&mut self, name: &ast::Name, number: i64) -> Result<(), Fault> {
        if let Some(other) = self.0.insert(number, name.text.clone()) {
            let message = format!(
                "`{}` has the number {number}, which `{other}` has already",
                name.text
            );
            return Err(Fault::new(name.span, message));
        }
        Ok(())
    }
}
