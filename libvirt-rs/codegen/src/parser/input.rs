//! Tokens as nom's input, and its error.

use nom::{
    Err, IResult,
    error::{ErrorKind, ParseError},
};

use crate::{
    ast::{Comment, Name},
    error::Span,
    limits::{MAX_NESTING, MAX_TERMS},
};

use super::lexer::{Kind, LexError, Lexed, Token};

/// What a parser of the grammar returns.
pub(super) type Parsed<'a, T> = IResult<Tokens<'a>, T, SyntaxError>;

/// The tokens that are left. At least [`Kind::End`] always is.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    all: &'a [Token<'a>],
    comments: &'a [Comment],
    next: usize,
    depth: usize,
    terms: usize,
}

/// What was expected, at the furthest token that any attempt has come to.
#[derive(Debug)]
pub(super) struct SyntaxError {
    at: usize,
    expected: Vec<Expected>,
    reason: Option<String>,
}

/// Something that may stand at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// A keyword or a symbol.
    Exactly(&'static str),
    /// Something in words.
    Any(&'static str),
}

/// Words that can't be names: those of RFC 4506, section 6.2, and C's types.
const RESERVED: &[&str] = &[
    "bool",
    "case",
    "char",
    "const",
    "default",
    "double",
    "enum",
    "float",
    "hyper",
    "int",
    "long",
    "opaque",
    "quadruple",
    "short",
    "string",
    "struct",
    "switch",
    "typedef",
    "union",
    "unsigned",
    "void",
];

/// Runs a parser that takes all there is.
pub(super) fn run<'a, T>(
    lexed: &'a Lexed<'a>,
    parser: impl Fn(Tokens<'a>) -> Parsed<'a, T>,
) -> Result<T, LexError> {
    let tokens = Tokens {
        all: &lexed.tokens,
        comments: &lexed.comments,
        next: 0,
        depth: 0,
        terms: 0,
    };
    match parser(tokens) {
        Ok((_, output)) => Ok(output),
        Err(Err::Error(error) | Err::Failure(error)) => Err(error.describe(tokens)),
        // Only parsers of streams say so.
        Err(Err::Incomplete(_)) => Err(LexError {
            span: Span::default(),
            message: "the file ends too early".to_owned(),
        }),
    }
}

/// The keyword or symbol `text`.
pub(super) fn exactly<'a>(text: &'static str) -> impl Fn(Tokens<'a>) -> Parsed<'a, Token<'a>> {
    move |input| {
        let token = input.peek();
        match token.kind {
            Kind::Word | Kind::Symbol if token.text == text => Ok((input.advance(), token)),
            _ => Err(input.expected(Expected::Exactly(text))),
        }
    }
}

/// A word that is not reserved.
pub(super) fn name(input: Tokens<'_>) -> Parsed<'_, Name> {
    let token = input.peek();
    if token.kind != Kind::Word || RESERVED.contains(&token.text) {
        return Err(input.expected(Expected::Any("a name")));
    }
    let name = Name {
        text: token.text.to_owned(),
        span: token.span,
    };
    Ok((input.advance(), name))
}

/// As many as there are of `element` until `close`, which is taken too.
pub(super) fn until<'a, T>(
    close: &'static str,
    element: impl Fn(Tokens<'a>) -> Parsed<'a, T>,
) -> impl Fn(Tokens<'a>) -> Parsed<'a, Vec<T>> {
    move |mut input| {
        let mut elements = Vec::new();
        loop {
            let end = match exactly(close)(input) {
                Ok((rest, _)) => return Ok((rest, elements)),
                Err(end) => end,
            };
            match element(input) {
                Ok((rest, element)) => {
                    elements.push(element);
                    input = rest;
                }
                Err(Err::Error(error)) => return Err(merge(end, error)),
                Err(error) => return Err(error),
            }
        }
    }
}

/// One or more of `element` with commas between them, then `close`.
pub(super) fn list<'a, T>(
    close: &'static str,
    element: impl Fn(Tokens<'a>) -> Parsed<'a, T>,
) -> impl Fn(Tokens<'a>) -> Parsed<'a, Vec<T>> {
    move |mut input| {
        let mut elements = Vec::new();
        loop {
            let (rest, one) = element(input)?;
            elements.push(one);
            let end = match exactly(close)(rest) {
                Ok((rest, _)) => return Ok((rest, elements)),
                Err(end) => end,
            };
            match exactly(",")(rest) {
                Ok((rest, _)) => input = rest,
                Err(Err::Error(error)) => return Err(merge(end, error)),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Runs a parser one level deeper.
pub(super) fn nested<'a, T>(
    input: Tokens<'a>,
    parser: impl Fn(Tokens<'a>) -> Parsed<'a, T>,
) -> Parsed<'a, T> {
    if input.depth == MAX_NESTING {
        return input.refuse(format!("this is nested deeper than {MAX_NESTING} levels"));
    }
    let deeper = Tokens {
        depth: input.depth + 1,
        ..input
    };
    let (rest, output) = parser(deeper)?;
    let depth = input.depth;
    Ok((Tokens { depth, ..rest }, output))
}

fn merge(one: Err<SyntaxError>, other: SyntaxError) -> Err<SyntaxError> {
    one.map(|error| error.or(other))
}

// === impl Tokens ===

impl<'a> Tokens<'a> {
    pub(super) fn peek(self) -> Token<'a> {
        // `advance` never goes past the last token.
        self.all[self.next]
    }

    pub(super) fn advance(self) -> Self {
        let last = self.all.len() - 1;
        Self {
            next: last.min(self.next + 1),
            ..self
        }
    }

    /// Counts a number or name of an expression.
    pub(super) fn count_term(self) -> Result<Self, Err<SyntaxError>> {
        if self.terms == MAX_TERMS {
            let reason = format!("this expression has more than {MAX_TERMS} numbers and names");
            return Err(self.failure(reason));
        }
        let terms = self.terms + 1;
        Ok(Self { terms, ..self })
    }

    /// A new expression begins.
    pub(super) fn without_terms(self) -> Self {
        Self { terms: 0, ..self }
    }

    /// The comments that say something of what comes next.
    pub(super) fn comments(self) -> Vec<Comment> {
        let (from, to) = self.peek().comments;
        let before = self.comments[from..to].iter();
        before.filter(|comment| !comment.trails).cloned().collect()
    }

    /// From the next token here to the last one before `rest`.
    pub(super) fn span_until(self, rest: Self) -> Span {
        let start = self.peek().span.start;
        let last = self.next.max(rest.next.saturating_sub(1));
        let end = self.all[last].span.end;
        Span { start, end }
    }

    pub(super) fn expected(self, what: Expected) -> Err<SyntaxError> {
        Err::Error(SyntaxError {
            at: self.next,
            expected: vec![what],
            reason: None,
        })
    }

    /// Ends parsing, for a reason that another attempt can't change.
    pub(super) fn refuse<T>(self, reason: impl Into<String>) -> Parsed<'a, T> {
        Err(self.failure(reason))
    }

    fn failure(self, reason: impl Into<String>) -> Err<SyntaxError> {
        Err::Failure(SyntaxError {
            at: self.next,
            expected: Vec::new(),
            reason: Some(reason.into()),
        })
    }
}

// === impl SyntaxError ===

impl SyntaxError {
    fn describe(self, tokens: Tokens<'_>) -> LexError {
        let token = tokens.all[self.at];
        let message = self.reason.unwrap_or_else(|| {
            let expected: Vec<String> = self
                .expected
                .iter()
                .map(|expected| match expected {
                    Expected::Exactly(text) => format!("`{text}`"),
                    Expected::Any(words) => (*words).to_owned(),
                })
                .collect();
            let expected = match expected.split_last() {
                Some((last, [])) => last.clone(),
                Some((last, others)) => format!("{} or {last}", others.join(", ")),
                None => "something else".to_owned(),
            };
            format!("expected {expected}, found {}", found(token))
        });
        LexError {
            span: token.span,
            message,
        }
    }
}

fn found(token: Token<'_>) -> String {
    match token.kind {
        Kind::End => "the end of the file".to_owned(),
        Kind::PassThrough => "a line that begins with `%`".to_owned(),
        Kind::Word if RESERVED.contains(&token.text) => format!("the keyword `{}`", token.text),
        _ => format!("`{}`", token.text),
    }
}

impl<'a> ParseError<Tokens<'a>> for SyntaxError {
    fn from_error_kind(input: Tokens<'a>, _: ErrorKind) -> Self {
        Self {
            at: input.next,
            expected: Vec::new(),
            reason: None,
        }
    }

    fn append(_: Tokens<'a>, _: ErrorKind, other: Self) -> Self {
        other
    }

    /// Of two attempts that have failed, the one that has come further says more.
    fn or(mut self, other: Self) -> Self {
        if self.at != other.at {
            return if self.at > other.at { self } else { other };
        }
        for expected in other.expected {
            if !self.expected.contains(&expected) {
                self.expected.push(expected);
            }
        }
        self
    }
}
