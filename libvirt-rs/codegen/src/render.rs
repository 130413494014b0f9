//! From a model to an interface file, in one layout for all.

use std::fmt::{self, Display, Write as _};

use crate::model::{
    Docs, Enum, Field, Form, Model, Notation, Priority, Procedure, Program, Type, TypeDefinition,
    TypeKind, Union, Value, procedures::implied_stream,
};

const INDENT: &str = "    ";

/// Writes a model as an interface file: constants, then types, then programs. Reading it gives the same model.
///
/// ```
/// use libvirt_codegen::{Model, Options, parse, render};
///
/// # fn main() -> Result<(), libvirt_codegen::Error> {
/// let options = Options::new();
/// let model = Model::new(&parse("struct point{int x;int y;};const ORIGIN=0;")?, &options)?;
/// let text = render(&model);
/// assert_eq!(
///     text,
///     "const ORIGIN = 0;\n\nstruct point {\n    int x;\n    int y;\n};\n"
/// );
/// assert_eq!(Model::new(&parse(&text)?, &options)?, model);
/// # Ok(())
/// # }
/// ```
pub fn render(model: &Model) -> String {
    let mut text = String::new();
    // A `String` takes whatever is written to it.
    let _ = write(&mut text, model);
    text
}

/// A declaration as an interface file has it, such as `remote_nonnull_domain domains<REMOTE_DOMAIN_LIST_MAX>`.
pub(crate) fn declaration(form: &Form, name: &str) -> String {
    let bound = |bound: &Option<Value>| {
        let text = bound.as_ref().map(|bound| bound.text.as_str());
        text.unwrap_or_default().to_owned()
    };
    match form {
        Form::Plain(of) => format!("{of} {name}"),
        Form::Optional(of) => format!("{of} *{name}"),
        Form::Fixed(of, length) => format!("{of} {name}[{}]", length.text),
        Form::Variable(of, max) => format!("{of} {name}<{}>", bound(max)),
        Form::Text(max) => format!("string {name}<{}>", bound(max)),
        Form::FixedOpaque(length) => format!("opaque {name}[{}]", length.text),
        Form::Opaque(max) => format!("opaque {name}<{}>", bound(max)),
    }
}

impl Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primitive(primitive) => primitive.as_str(),
            Self::Named(name) => name,
        })
    }
}

fn write(out: &mut String, model: &Model) -> fmt::Result {
    if !model.head.is_empty() {
        out.write_str("/*\n")?;
        for line in &model.head {
            writeln!(out, "{}", format!(" * {line}").trim_end())?;
        }
        out.write_str(" */\n")?;
    }
    for (index, constant) in model.constants.iter().enumerate() {
        if index == 0 {
            separate(out);
        }
        comment(out, "", &lines(&constant.docs))?;
        writeln!(out, "const {} = {};", constant.name, constant.value.text)?;
    }
    let mut after_typedef = false;
    for definition in &model.types {
        let is_typedef = matches!(definition.kind, TypeKind::Typedef(_));
        if !(is_typedef && after_typedef) {
            separate(out);
        }
        after_typedef = is_typedef;
        write_type(out, definition)?;
    }
    let same = |one: &Program, other: &Program| {
        matches!(one.notation, Notation::Block { .. }) && one.name == other.name
    };
    for programs in model.programs.chunk_by(same) {
        separate(out);
        write_program(out, programs)?;
    }
    Ok(())
}

/// An empty line, unless the file begins here.
fn separate(out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
}

fn write_type(out: &mut String, definition: &TypeDefinition) -> fmt::Result {
    let name = &definition.name;
    let mut notes = lines(&definition.docs);
    match &definition.kind {
        TypeKind::Typedef(form) => {
            comment(out, "", &notes)?;
            writeln!(out, "typedef {};", declaration(form, name))
        }
        TypeKind::Enum(Enum { members, flags }) => {
            if *flags {
                notes.push("@flags".to_owned());
            }
            comment(out, "", &notes)?;
            writeln!(out, "enum {name} {{")?;
            let members = members
                .iter()
                .map(|member| (lines(&member.docs), &member.name, &member.value.text));
            write_members(out, members)
        }
        TypeKind::Struct(fields) => {
            comment(out, "", &notes)?;
            writeln!(out, "struct {name} {{")?;
            for field in fields {
                write_field(out, field)?;
            }
            out.write_str("};\n")
        }
        TypeKind::Union(union) => {
            comment(out, "", &notes)?;
            write_union(out, name, union)
        }
    }
}

/// The members of an enum, and its end.
fn write_members<'a>(
    out: &mut String,
    members: impl Iterator<Item = (Vec<String>, &'a String, impl Display)>,
) -> fmt::Result {
    let members: Vec<_> = members.collect();
    let last = members.len().saturating_sub(1);
    // Long comments need room between them.
    let spaced = members.iter().any(|(notes, _, _)| notes.len() > 1);
    for (index, (notes, name, value)) in members.into_iter().enumerate() {
        if spaced && index > 0 {
            out.write_char('\n')?;
        }
        comment(out, INDENT, &notes)?;
        let comma = if index == last { "" } else { "," };
        writeln!(out, "{INDENT}{name} = {value}{comma}")?;
    }
    out.write_str("};\n")
}

fn write_field(out: &mut String, field: &Field) -> fmt::Result {
    comment(out, INDENT, &lines(&field.docs))?;
    writeln!(out, "{INDENT}{};", declaration(&field.form, &field.name))
}

fn write_union(out: &mut String, name: &str, union: &Union) -> fmt::Result {
    let discriminant = &union.discriminant;
    let switch = declaration(&discriminant.form, &discriminant.name);
    writeln!(out, "union {name} switch ({switch}) {{")?;
    let body = |field: &Option<Field>, out: &mut String| match field {
        Some(field) => write_field(out, field),
        None => writeln!(out, "{INDENT}void;"),
    };
    for arm in &union.arms {
        for label in &arm.labels {
            writeln!(out, "case {}:", label.text)?;
        }
        body(&arm.field, out)?;
    }
    if let Some(default) = &union.default {
        out.write_str("default:\n")?;
        body(default, out)?;
    }
    out.write_str("};\n")
}

/// The versions of one program, or a program in libvirt's notation.
fn write_program(out: &mut String, versions: &[Program]) -> fmt::Result {
    let Some(program) = versions.first() else {
        return Ok(());
    };
    comment(out, "", &lines(&program.docs))?;
    if let Notation::Enum { name, .. } = &program.notation {
        writeln!(out, "enum {name} {{")?;
        let procedures = program.procedures.iter();
        return write_members(
            out,
            procedures.map(|procedure| (notes(procedure), &procedure.name, procedure.number)),
        );
    }
    writeln!(out, "program {} {{", program.name)?;
    for one in versions {
        if let Notation::Block { version } = &one.notation {
            writeln!(out, "{INDENT}version {version} {{")?;
        }
        for procedure in &one.procedures {
            write_prototype(out, procedure)?;
        }
        writeln!(out, "{INDENT}}} = {};", one.version)?;
    }
    writeln!(out, "}} = {:#x};", program.number)
}

/// A procedure in RFC 5531's notation.
fn write_prototype(out: &mut String, procedure: &Procedure) -> fmt::Result {
    let indent = INDENT.repeat(2);
    comment(out, &indent, &notes(procedure))?;
    let result = procedure.result.as_ref().map(Type::to_string);
    let result = result.unwrap_or_else(|| "void".to_owned());
    let arguments: Vec<String> = procedure.arguments.iter().map(Type::to_string).collect();
    let arguments = match arguments.len() {
        0 => "void".to_owned(),
        _ => arguments.join(", "),
    };
    let Procedure { name, number, .. } = procedure;
    writeln!(out, "{indent}{result} {name}({arguments}) = {number};")
}

/// A procedure's comment.
fn notes(procedure: &Procedure) -> Vec<String> {
    let mut notes = procedure.docs.text.clone();
    let mut note = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            notes.push(format!("@{key}: {value}"));
        }
    };
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    note("generate", procedure.generate.as_deref());
    if procedure.priority != Priority::default() {
        note("priority", word(&Priority::ALL, procedure.priority));
    }
    note("readstream", number(procedure.read_stream).as_deref());
    note("writestream", number(procedure.write_stream).as_deref());
    if procedure.stream != implied_stream(procedure.read_stream, procedure.write_stream) {
        let stream = procedure.stream;
        note(
            "stream",
            stream.and_then(|stream| word(&crate::model::StreamDirection::ALL, stream)),
        );
    }
    note("sparseflag", procedure.sparse_flag.as_deref());
    note("fds", word(&crate::model::Fds::ALL, procedure.fds));
    for right in &procedure.access {
        note("acl", Some(right));
    }
    for filter in &procedure.filters {
        note("aclfilter", Some(filter));
    }
    note("function", procedure.function.as_deref());
    note("since", procedure.docs.since.as_deref());
    if procedure.event {
        notes.push("@event".to_owned());
    }
    notes
}

/// The word of an annotation's value. What is the default has none.
fn word<T: PartialEq + Copy>(words: &[(&'static str, T)], value: T) -> Option<&'static str> {
    let found = words.iter().find(|(_, known)| *known == value);
    found.map(|(word, _)| *word)
}

fn lines(docs: &Docs) -> Vec<String> {
    let since = docs.since.iter().map(|since| format!("@since: {since}"));
    docs.text.iter().cloned().chain(since).collect()
}

fn comment(out: &mut String, indent: &str, lines: &[String]) -> fmt::Result {
    match lines {
        [] => Ok(()),
        [line] => writeln!(out, "{indent}/** {line} */"),
        lines => {
            writeln!(out, "{indent}/**")?;
            for line in lines {
                writeln!(out, "{}", format!("{indent} * {line}").trim_end())?;
            }
            writeln!(out, "{indent} */")
        }
    }
}
