//! Constant expressions, with C's precedence.

use nom::{Parser as _, branch::alt, combinator::cut, sequence::delimited};

use crate::{
    ast::{Expression, ExpressionKind, Operator},
    error::Span,
};

use super::{
    input::{Expected, Parsed, Tokens, exactly, name, nested},
    lexer::Kind,
};

/// An expression.
pub(super) fn expression(input: Tokens<'_>) -> Parsed<'_, Expression> {
    binary(input.without_terms(), 0)
}

/// Operands of the next level with operators of this one between them.
fn binary(input: Tokens<'_>, level: usize) -> Parsed<'_, Expression> {
    let Some(operators) = Operator::LEVELS.get(level) else {
        return operand(input);
    };
    let (mut rest, mut left) = binary(input, level + 1)?;
    while let Some(operator) = operators
        .iter()
        .find(|operator| exactly(operator.as_str())(rest).is_ok())
    {
        let (after, right) = cut(|input| binary(input, level + 1)).parse(rest.advance())?;
        rest = after;
        left = Expression {
            span: Span {
                start: left.span.start,
                end: right.span.end,
            },
            kind: ExpressionKind::Binary(*operator, Box::new(left), Box::new(right)),
        };
    }
    Ok((rest, left))
}

fn operand(input: Tokens<'_>) -> Parsed<'_, Expression> {
    alt((number, constant, negative, parentheses)).parse(input)
}

fn number(input: Tokens<'_>) -> Parsed<'_, Expression> {
    let token = input.peek();
    let Kind::Number(value) = token.kind else {
        return Err(input.expected(Expected::Any("a number")));
    };
    let kind = ExpressionKind::Number(value, token.text.to_owned());
    let span = token.span;
    Ok((input.count_term()?.advance(), Expression { span, kind }))
}

fn constant(input: Tokens<'_>) -> Parsed<'_, Expression> {
    let expected = Expected::Any("a constant's name");
    let (rest, name) = name(input).or(Err(input.expected(expected)))?;
    let rest = rest.count_term()?;
    let span = name.span;
    let kind = ExpressionKind::Name(name.text);
    Ok((rest, Expression { span, kind }))
}

fn negative(input: Tokens<'_>) -> Parsed<'_, Expression> {
    let (rest, _) = exactly("-")(input)?;
    let (rest, of) = nested(rest, |input| cut(operand).parse(input))?;
    let span = input.span_until(rest);
    let kind = ExpressionKind::Negative(Box::new(of));
    Ok((rest, Expression { span, kind }))
}

fn parentheses(input: Tokens<'_>) -> Parsed<'_, Expression> {
    let inner = |input| nested(input, |input| cut(|input| binary(input, 0)).parse(input));
    delimited(exactly("("), inner, cut(exactly(")"))).parse(input)
}
