//! From text to tokens and comments.

use nom::{
    IResult, Parser as _,
    branch::alt,
    bytes::complete::{tag, take_until, take_while, take_while1},
    character::complete::{not_line_ending, one_of, satisfy},
    combinator::{map, recognize},
    error::Error as NomError,
    sequence::delimited,
};

use crate::{ast::Comment, error::Span};

/// A token and the comments before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    pub(super) span: Span,
    /// How many of the file's comments stand before it, and how many before the token before it.
    pub(super) comments: (usize, usize),
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Number(u64),
    Symbol,
    /// A line after `%`.
    PassThrough,
    /// Behind the last token.
    End,
}

/// The tokens of a file, of which the last is [`Kind::End`], and its comments.
pub(super) struct Lexed<'a> {
    pub(super) tokens: Vec<Token<'a>>,
    pub(super) comments: Vec<Comment>,
}

/// What stands where no token can.
#[derive(Debug)]
pub(super) struct LexError {
    pub(super) span: Span,
    pub(super) message: String,
}

/// Splits a text up.
pub(super) fn lex(text: &str) -> Result<Lexed<'_>, LexError> {
    let mut lexer = Lexer {
        text,
        rest: text,
        begins_line: true,
        after_line: true,
        tokens: Vec::new(),
        comments: Vec::new(),
        counted: 0,
    };
    while lexer.step()? {}
    Ok(Lexed {
        tokens: lexer.tokens,
        comments: lexer.comments,
    })
}

struct Lexer<'a> {
    text: &'a str,
    rest: &'a str,
    /// Only white space and comments have come since the line's begin.
    begins_line: bool,
    /// A line has ended since the last token.
    after_line: bool,
    tokens: Vec<Token<'a>>,
    comments: Vec<Comment>,
    counted: usize,
}

/// What can begin at any place of a text.
enum Piece<'a> {
    Space,
    Comment(&'a str),
    Word,
    Number,
    Symbol,
}

impl<'a> Lexer<'a> {
    /// Takes one piece; `false` at the end.
    fn step(&mut self) -> Result<bool, LexError> {
        let start = self.text.len() - self.rest.len();
        match self.rest.chars().next() {
            None => {
                self.push(Kind::End, start, "");
                return Ok(false);
            }
            Some('%') if self.begins_line => {
                let line = self.take_line();
                self.push(Kind::PassThrough, start, line);
                return Ok(true);
            }
            Some('#') if self.begins_line => {
                let line = self.take_line();
                return Err(self.error(
                    start,
                    line.len(),
                    "lines of the C preprocessor are not understood: hand the file to `cpp -P` first, or begin the \
                     line with `%` if it is meant for the C compiler",
                ));
            }
            Some('/') if self.rest.starts_with("/*") && !self.rest[2..].contains("*/") => {
                return Err(self.error(start, 2, "this comment has no end: `*/` is missing"));
            }
            Some(_) => {}
        }
        let Ok((rest, (piece, text))) = piece(self.rest) else {
            return Err(self.stray(start));
        };
        self.rest = rest;
        let begins_line = self.begins_line;
        self.begins_line = false;
        let ends_line = text.contains('\n');
        match piece {
            Piece::Space => self.begins_line = begins_line || ends_line,
            Piece::Comment(inner) => {
                self.begins_line = begins_line;
                self.comments.push(Comment {
                    text: inner.to_owned(),
                    span: span(start, text),
                    documents: text.starts_with("/**") && text.len() > "/**/".len(),
                    trails: !self.after_line,
                });
            }
            Piece::Word => self.push(Kind::Word, start, text),
            Piece::Symbol => self.push(Kind::Symbol, start, text),
            Piece::Number => {
                let value = number(text).map_err(|why| self.error(start, text.len(), why))?;
                self.push(Kind::Number(value), start, text);
            }
        }
        self.after_line |= ends_line;
        Ok(true)
    }

    fn take_line(&mut self) -> &'a str {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        line.trim_end()
    }

    fn push(&mut self, kind: Kind, start: usize, text: &'a str) {
        // A comment between two tokens of one line belongs to the second.
        let mut behind = start;
        let mut same_line = kind != Kind::End;
        for comment in self.comments[self.counted..].iter_mut().rev() {
            same_line &= !self.text[comment.span.end..behind].contains('\n');
            comment.trails &= !same_line;
            behind = comment.span.end;
        }
        self.after_line = false;
        self.tokens.push(Token {
            kind,
            text,
            span: span(start, text),
            comments: (self.counted, self.comments.len()),
        });
        self.counted = self.comments.len();
    }

    fn stray(&self, start: usize) -> LexError {
        let character = self.rest.chars().next().unwrap_or_default();
        let message = format!("the character {character:?} has no meaning here");
        self.error(start, character.len_utf8(), message)
    }

    fn error(&self, start: usize, length: usize, message: impl Into<String>) -> LexError {
        let end = start + length;
        LexError {
            span: Span { start, end },
            message: message.into(),
        }
    }
}

fn span(start: usize, text: &str) -> Span {
    let end = start + text.len();
    Span { start, end }
}

fn piece(input: &str) -> IResult<&str, (Piece<'_>, &str)> {
    let (rest, piece) = alt((
        map(take_while1(|c: char| c.is_ascii_whitespace()), |_| {
            Piece::Space
        }),
        map(comment, Piece::Comment),
        map((satisfy(begins_name), take_while(in_name)), |_| Piece::Word),
        // A letter behind a digit is no second word but a mistake.
        map(
            (satisfy(|c| c.is_ascii_digit()), take_while(in_name)),
            |_| Piece::Number,
        ),
        map(
            alt((tag("<<"), recognize(one_of("{}()[]<>;,=:*+-/|")))),
            |_| Piece::Symbol,
        ),
    ))
    .parse(input)?;
    Ok((rest, (piece, &input[..input.len() - rest.len()])))
}

/// Without its delimiters.
fn comment(input: &str) -> IResult<&str, &str> {
    let block = delimited(tag("/*"), take_until("*/"), tag("*/"));
    let line = (tag("//"), not_line_ending);
    alt((block, map(line, |(_, inner)| inner))).parse(input)
}

fn begins_name(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_'
}

fn in_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Decimal, `0x` hexadecimal, or octal after a zero.
fn number(text: &str) -> Result<u64, String> {
    let (digits, radix, kind) = radix(text);
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(format!("`{text}` is no {kind} number"));
    }
    u64::from_str_radix(digits, radix).map_err(|_| format!("`{text}` exceeds 64 bits"))
}

fn radix(text: &str) -> (&str, u32, &'static str) {
    let hexadecimal = alt((tag("0x"), tag::<_, _, NomError<&str>>("0X"))).parse(text);
    match hexadecimal {
        Ok((digits, _)) => (digits, 16, "hexadecimal"),
        Err(_) if text.len() > 1 && text.starts_with('0') => (text, 8, "octal"),
        Err(_) => (text, 10, "decimal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        let lexed = lex(text).unwrap();
        lexed.tokens.iter().map(|token| token.text).collect()
    }

    fn refusal(text: &str) -> String {
        lex(text).err().expect("it is refused").message
    }

    #[test]
    fn a_text_is_split_into_words_numbers_and_symbols() {
        assert_eq!(
            texts("string a_1<<2>;\n %y z \n"),
            ["string", "a_1", "<<", "2", ">", ";", "%y z", ""]
        );
    }

    #[test]
    fn numbers_are_read_in_three_radixes() {
        for (text, expected) in [
            ("0", 0),
            ("10", 10),
            ("010", 8),
            ("0x10", 16),
            ("0Xff", 255),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(number(text), Ok(expected));
        }
        for (text, expected) in [
            ("08", "no octal number"),
            ("0x", "no hexadecimal number"),
            ("1x", "no decimal number"),
            ("1_000", "no decimal number"),
            ("18446744073709551616", "exceeds 64 bits"),
        ] {
            assert!(refusal(text).contains(expected), "{text}");
        }
    }

    #[test]
    fn comments_keep_their_text_and_their_place() {
        let text = "/* a */ x; // b\n/** c */ y /***/ z /**/";
        let lexed = lex(text).unwrap();
        let comments: Vec<_> = lexed
            .comments
            .iter()
            .map(|comment| (comment.text.as_str(), comment.documents, comment.trails))
            .collect();
        assert_eq!(
            comments,
            [
                (" a ", false, false),
                (" b", false, true),
                ("* c ", true, false),
                ("*", true, false),
                ("", false, true),
            ]
        );
        for comment in &lexed.comments {
            assert!(text[comment.span.start..comment.span.end].starts_with('/'));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        assert!(refusal("/* a").contains("`*/` is missing"));
        assert!(refusal("a\n#include <b>").contains("preprocessor"));
        assert!(refusal("a # b").contains("'#'"));
        assert!(refusal("é").contains("'é'"));
        assert!(refusal("a %b").contains("'%'"));
    }
}
