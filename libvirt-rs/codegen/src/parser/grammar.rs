//! The definitions of an interface file.

use nom::{
    Parser,
    branch::alt,
    combinator::{cut, map, opt},
    sequence::{delimited, preceded, terminated},
};

use crate::ast::{
    Arm, ArmBody, Declaration, Expression, Form, Item, ItemKind, Member, Primitive, Procedure,
    Program, Specifier, SpecifierKind, UnionBody, Version,
};

use super::{
    expression::expression,
    input::{Expected, Parsed, SyntaxError, Tokens, exactly, list, name, nested, until},
    lexer::Kind,
};

/// A whole file.
pub(super) fn items(mut input: Tokens<'_>) -> Parsed<'_, Vec<Item>> {
    let mut items = Vec::new();
    while input.peek().kind != Kind::End {
        let (rest, kind) = item(input)?;
        items.push(Item {
            comments: input.comments(),
            span: input.span_until(rest),
            kind,
        });
        input = rest;
    }
    Ok((input, items))
}

fn item(input: Tokens<'_>) -> Parsed<'_, ItemKind> {
    let semicolon = || exactly(";");
    alt((
        map(
            keyword("const", (name, exactly("="), expression, semicolon())),
            |(name, _, value, _)| ItemKind::Constant(name, value),
        ),
        map(
            keyword("typedef", terminated(declaration, semicolon())),
            ItemKind::Typedef,
        ),
        map(
            keyword("enum", (name, enum_body, semicolon())),
            |(name, members, _)| ItemKind::Enum(name, members),
        ),
        map(
            keyword("struct", (name, struct_body, semicolon())),
            |(name, fields, _)| ItemKind::Struct(name, fields),
        ),
        map(
            keyword("union", (name, union_body, semicolon())),
            |(name, body, _)| ItemKind::Union(name, Box::new(body)),
        ),
        map(program, ItemKind::Program),
        pass_through,
    ))
    .parse(input)
}

/// What begins with a keyword can be nothing else.
fn keyword<'a, T>(
    word: &'static str,
    rest: impl Parser<Tokens<'a>, Output = T, Error = SyntaxError>,
) -> impl Parser<Tokens<'a>, Output = T, Error = SyntaxError> {
    preceded(exactly(word), cut(rest))
}

fn pass_through(input: Tokens<'_>) -> Parsed<'_, ItemKind> {
    let token = input.peek();
    if token.kind != Kind::PassThrough {
        return Err(input.expected(Expected::Any("a line that begins with `%`")));
    }
    let line = token.text.trim_start_matches('%').to_owned();
    Ok((input.advance(), ItemKind::PassThrough(line)))
}

fn enum_body(input: Tokens<'_>) -> Parsed<'_, Vec<Member>> {
    preceded(exactly("{"), cut(list("}", member))).parse(input)
}

fn member(input: Tokens<'_>) -> Parsed<'_, Member> {
    let value = opt(keyword("=", expression));
    let (rest, (name, value)) = (name, value).parse(input)?;
    let member = Member {
        comments: input.comments(),
        name,
        value,
    };
    Ok((rest, member))
}

fn struct_body(input: Tokens<'_>) -> Parsed<'_, Vec<Declaration>> {
    let fields = until("}", terminated_declaration);
    let (rest, fields) = preceded(exactly("{"), cut(fields)).parse(input)?;
    if fields.is_empty() {
        return input
            .advance()
            .refuse("a struct needs at least one field (RFC 4506, section 6.3)");
    }
    Ok((rest, fields))
}

fn terminated_declaration(input: Tokens<'_>) -> Parsed<'_, Declaration> {
    let (rest, declaration) = declaration(input)?;
    let (rest, _) = cut(exactly(";")).parse(rest)?;
    Ok((rest, declaration))
}

fn union_body(input: Tokens<'_>) -> Parsed<'_, UnionBody> {
    let discriminant = delimited(exactly("("), declaration, exactly(")"));
    let head = terminated(discriminant, exactly("{"));
    let (mut rest, discriminant) = keyword("switch", head).parse(input)?;
    let mut arms = Vec::new();
    loop {
        let (after, next) = cut(arm_or_end).parse(rest)?;
        match next {
            Next::Arm(arm) => arms.push(arm),
            Next::End(_) if arms.is_empty() => {
                return rest.refuse("a union needs at least one case (RFC 4506, section 6.3)");
            }
            Next::End(default) => {
                let body = UnionBody {
                    discriminant,
                    arms,
                    default,
                };
                return Ok((after, body));
            }
        }
        rest = after;
    }
}

/// What comes next in a union's body. A default arm is the last.
enum Next {
    Arm(Arm),
    End(Option<ArmBody>),
}

fn arm_or_end(input: Tokens<'_>) -> Parsed<'_, Next> {
    let default = keyword("default", preceded(exactly(":"), arm_body));
    alt((
        map(arm, Next::Arm),
        map(terminated(default, cut(exactly("}"))), |body| {
            Next::End(Some(body))
        }),
        map(exactly("}"), |_| Next::End(None)),
    ))
    .parse(input)
}

fn arm(input: Tokens<'_>) -> Parsed<'_, Arm> {
    let label = || keyword("case", terminated(expression, exactly(":")));
    let (mut rest, first) = label().parse(input)?;
    let mut labels = vec![first];
    while let (after, Some(next)) = opt(label()).parse(rest)? {
        labels.push(next);
        rest = after;
    }
    let (rest, body) = cut(arm_body).parse(rest)?;
    Ok((rest, Arm { labels, body }))
}

fn arm_body(input: Tokens<'_>) -> Parsed<'_, ArmBody> {
    let void = map((exactly("void"), cut(exactly(";"))), |_| None);
    alt((void, map(terminated_declaration, Some))).parse(input)
}

fn declaration(input: Tokens<'_>) -> Parsed<'_, Declaration> {
    let (rest, specifier) = specifier(input)?;
    let (rest, (name, form)) = match specifier.kind {
        SpecifierKind::Opaque => cut((name, alt((fixed, variable)))).parse(rest)?,
        SpecifierKind::Text => cut((name, variable)).parse(rest)?,
        _ => {
            let optional = map(preceded(exactly("*"), cut(name)), |name| {
                (name, Form::Optional)
            });
            let form = map(opt(alt((fixed, variable))), |form| {
                form.unwrap_or(Form::Plain)
            });
            cut(alt((optional, (name, form)))).parse(rest)?
        }
    };
    let declaration = Declaration {
        comments: input.comments(),
        name,
        specifier,
        form,
    };
    Ok((rest, declaration))
}

fn fixed(input: Tokens<'_>) -> Parsed<'_, Form> {
    let length = terminated(expression, exactly("]"));
    map(keyword("[", length), Form::Fixed).parse(input)
}

fn variable(input: Tokens<'_>) -> Parsed<'_, Form> {
    let bound = |input| {
        let unbounded = map(exactly(">"), |_| None);
        let bounded = map(terminated(expression, exactly(">")), Some);
        alt((unbounded, bounded)).parse(input)
    };
    map(keyword("<", bound), Form::Variable).parse(input)
}

fn specifier(input: Tokens<'_>) -> Parsed<'_, Specifier> {
    let (rest, kind) = alt((simple, unsigned, compound)).parse(input)?;
    let span = input.span_until(rest);
    Ok((rest, Specifier { span, kind }))
}

fn simple(input: Tokens<'_>) -> Parsed<'_, SpecifierKind> {
    let primitive = match input.peek().text {
        "int" => Primitive::Int,
        "hyper" => Primitive::Hyper,
        "short" => Primitive::Short,
        "char" => Primitive::Char,
        "float" => Primitive::Float,
        "double" => Primitive::Double,
        "bool" => Primitive::Bool,
        "opaque" => return Ok((input.advance(), SpecifierKind::Opaque)),
        "string" => return Ok((input.advance(), SpecifierKind::Text)),
        "quadruple" => {
            return input.refuse(
                "`quadruple`, a float of 128 bits, has no counterpart in Rust's stable types",
            );
        }
        "long" => {
            return input
                .refuse("`long` is not of one size: write `int` for 32 bits or `hyper` for 64");
        }
        "void" => {
            return input.refuse("`void` stands only in the arm of a union and with a procedure");
        }
        _ => return Err(input.expected(Expected::Any("a type"))),
    };
    Ok((input.advance(), SpecifierKind::Primitive(primitive)))
}

/// `unsigned` alone is `unsigned int`, as in C.
fn unsigned(input: Tokens<'_>) -> Parsed<'_, SpecifierKind> {
    let (rest, _) = exactly("unsigned")(input).or(Err(input.expected(Expected::Any("a type"))))?;
    let (rest, primitive) = match rest.peek().text {
        "int" => (rest.advance(), Primitive::UnsignedInt),
        "hyper" => (rest.advance(), Primitive::UnsignedHyper),
        "short" => (rest.advance(), Primitive::UnsignedShort),
        "char" => (rest.advance(), Primitive::UnsignedChar),
        _ => (rest, Primitive::UnsignedInt),
    };
    Ok((rest, SpecifierKind::Primitive(primitive)))
}

/// A body on the spot, or a name, which may be preceded by its kind as in C.
fn compound(input: Tokens<'_>) -> Parsed<'_, SpecifierKind> {
    let named = |input| map(name, |name| SpecifierKind::Named(name.text)).parse(input);
    let rest = input.advance();
    match input.peek().text {
        "enum" => nested(rest, |input| {
            let body = map(enum_body, SpecifierKind::Enum);
            cut(alt((body, named))).parse(input)
        }),
        "struct" => nested(rest, |input| {
            let body = map(struct_body, SpecifierKind::Struct);
            cut(alt((body, named))).parse(input)
        }),
        "union" => nested(rest, |input| {
            let body = map(union_body, |body| SpecifierKind::Union(Box::new(body)));
            cut(alt((body, named))).parse(input)
        }),
        _ => named(input).or(Err(input.expected(Expected::Any("a type")))),
    }
}

/// `result NAME(arguments) = number;` within `version NAME { … } = number;` within `program NAME { … } = number;`
fn program(input: Tokens<'_>) -> Parsed<'_, Program> {
    let versions = preceded(exactly("{"), until("}", version));
    let (rest, (name, versions, number)) =
        keyword("program", (name, versions, numbered)).parse(input)?;
    let program = Program {
        name,
        versions,
        number,
    };
    Ok((rest, program))
}

fn version(input: Tokens<'_>) -> Parsed<'_, Version> {
    let procedures = preceded(exactly("{"), until("}", procedure));
    let (rest, (name, procedures, number)) =
        keyword("version", (name, procedures, numbered)).parse(input)?;
    let version = Version {
        name,
        procedures,
        number,
    };
    Ok((rest, version))
}

fn procedure(input: Tokens<'_>) -> Parsed<'_, Procedure> {
    let void = || exactly("void");
    let result = alt((map(void(), |_| None), map(specifier, Some)));
    let none = map((void(), cut(exactly(")"))), |_| Vec::new());
    let arguments = preceded(exactly("("), alt((none, list(")", specifier))));
    let (rest, (result, name, arguments, number)) =
        (result, name, arguments, numbered).parse(input)?;
    let procedure = Procedure {
        comments: input.comments(),
        result,
        name,
        arguments,
        number,
    };
    Ok((rest, procedure))
}

fn numbered(input: Tokens<'_>) -> Parsed<'_, Expression> {
    delimited(exactly("="), expression, exactly(";")).parse(input)
}
