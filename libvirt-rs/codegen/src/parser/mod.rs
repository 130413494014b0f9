//! From text to an [`ast`](crate::ast): RFC 4506, section 6, and RFC 5531, section 12, as libvirt uses them.
//!
//! | module | what it does |
//! |---|---|
//! | `lexer` | splits the text into tokens and comments |
//! | `input` | hands tokens to nom, and remembers what was expected where nothing fits |
//! | `grammar` | the definitions |
//! | `expression` | constant expressions |
//!
//! Beyond the RFCs: `char` and `short`, signed and not; `unsigned` alone; `struct name`, `enum name` and `union name`
//! as types; enum members without a value; and expressions wherever a constant may stand.

mod expression;
mod grammar;
mod input;
mod lexer;

use std::{fs, path::Path};

use crate::{
    ast::Specification,
    error::{Error, Source, Span},
    limits::MAX_SOURCE,
};

/// Reads the text of an interface file.
///
/// # Errors
/// The text is no interface file, is longer than [`MAX_SOURCE`], or nests deeper than
/// [`MAX_NESTING`](crate::limits::MAX_NESTING).
pub fn parse(text: &str) -> Result<Specification, Error> {
    parse_source(Source {
        file: None,
        text: text.to_owned(),
    })
}

/// Reads an interface file. Errors name it.
///
/// # Errors
/// The file can't be read, or as with [`parse`].
pub fn parse_file(path: impl AsRef<Path>) -> Result<Specification, Error> {
    let path = path.as_ref();
    let text = fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    parse_source(Source {
        file: Some(path.display().to_string()),
        text,
    })
}

fn parse_source(source: Source) -> Result<Specification, Error> {
    if source.text.len() > MAX_SOURCE {
        let message = format!("an interface file may have {MAX_SOURCE} bytes, this one has more");
        return Err(source.diagnose(Span::default(), message).into());
    }
    let lexed =
        lexer::lex(&source.text).map_err(|error| source.diagnose(error.span, error.message))?;
    let items = input::run(&lexed, grammar::items)
        .map_err(|error| source.diagnose(error.span, error.message))?;
    let comments = lexed.comments;
    Ok(Specification {
        items,
        comments,
        source,
    })
}
