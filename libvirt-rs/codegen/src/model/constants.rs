//! Names, of which each is defined once, and the values of constants.

use std::collections::HashMap;

use crate::{
    ast::{Expression, ExpressionKind, Operator, Specification},
    error::Span,
    limits::MAX_FORWARD_CONSTANTS,
    options::Options,
};

use super::{Value, resolve::Fault};

/// Every name that a file defines. Types and constants share them, as in C and in RFC 4506, section 6.4.
pub(super) struct Names<'a> {
    specification: &'a Specification,
    options: &'a Options,
    defined: Scope,
    constants: HashMap<&'a str, usize>,
    entries: Vec<Entry<'a>>,
}

/// Names of which each is there once, and where it is.
#[derive(Default)]
pub(super) struct Scope(HashMap<String, Span>);

/// A constant or a member of an enum.
struct Entry<'a> {
    name: &'a str,
    definition: Definition<'a>,
    state: State,
}

#[derive(Clone, Copy)]
enum Definition<'a> {
    Expression(&'a Expression),
    /// So much more than another member of the enum, or than nothing.
    After(Option<usize>, i64),
}

#[derive(Clone, Copy)]
enum State {
    Unknown,
    /// It is being computed: whoever asks for it now is part of its own definition.
    InProgress,
    Known(i64),
}

impl<'a> Names<'a> {
    pub(super) fn new(specification: &'a Specification, options: &'a Options) -> Self {
        Self {
            specification,
            options,
            defined: Scope::default(),
            constants: HashMap::new(),
            entries: Vec::new(),
        }
    }

    /// Takes a name; it must be free.
    pub(super) fn define(&mut self, name: &str, span: Span) -> Result<(), Fault> {
        self.defined.define(name, span, self.specification)
    }

    /// Takes a name that is known within `scope` only; it must be free there.
    pub(super) fn define_within(
        &self,
        scope: &mut Scope,
        name: &crate::ast::Name,
    ) -> Result<(), Fault> {
        scope.define(&name.text, name.span, self.specification)
    }

    /// Takes a constant's name and notes what it is defined by.
    pub(super) fn define_constant(
        &mut self,
        name: &'a crate::ast::Name,
        value: &'a Expression,
    ) -> Result<(), Fault> {
        self.enter(name, Definition::Expression(value))
    }

    /// Takes the names of an enum's members.
    pub(super) fn define_members(
        &mut self,
        members: &'a [crate::ast::Member],
    ) -> Result<(), Fault> {
        let mut last = None;
        let mut offset = 0;
        for member in members {
            match &member.value {
                Some(value) => {
                    last = Some(self.entries.len());
                    offset = 0;
                    self.enter(&member.name, Definition::Expression(value))?;
                }
                None => self.enter(&member.name, Definition::After(last, offset))?,
            }
            offset += 1;
        }
        Ok(())
    }

    fn enter(
        &mut self,
        name: &'a crate::ast::Name,
        definition: Definition<'a>,
    ) -> Result<(), Fault> {
        self.define(&name.text, name.span)?;
        self.constants.insert(&name.text, self.entries.len());
        self.entries.push(Entry {
            name: &name.text,
            definition,
            state: State::Unknown,
        });
        Ok(())
    }

    /// The value of a constant that stands at `span`.
    pub(super) fn constant(&mut self, name: &str, span: Span) -> Result<i64, Fault> {
        self.lookup(name, span, 0)
    }

    /// The value of a constant, if there is one of that name.
    pub(super) fn find(&mut self, name: &str, span: Span) -> Result<Option<i64>, Fault> {
        if self.constants.contains_key(name) || self.options.external(name).is_some() {
            return self.lookup(name, span, 0).map(Some);
        }
        Ok(None)
    }

    /// An expression's value, and how it is written.
    pub(super) fn value(&mut self, expression: &Expression) -> Result<Value, Fault> {
        Ok(Value {
            number: self.compute(expression, 0)?,
            text: expression.to_string(),
        })
    }

    fn lookup(&mut self, name: &str, span: Span, depth: usize) -> Result<i64, Fault> {
        let Some(index) = self.constants.get(name).copied() else {
            let builtin = match name {
                "FALSE" => Some(0),
                "TRUE" => Some(1),
                _ => None,
            };
            return self.options.external(name).or(builtin).ok_or_else(|| {
                let message = format!(
                    "the constant `{name}` is unknown: define it, or name it in the options if it comes from a C header"
                );
                Fault::new(span, message)
            });
        };
        let entry = &mut self.entries[index];
        match entry.state {
            State::Known(value) => return Ok(value),
            State::InProgress => {
                let message = format!("`{}` is defined by itself", entry.name);
                return Err(Fault::new(span, message));
            }
            State::Unknown => entry.state = State::InProgress,
        }
        let definition = entry.definition;
        let value = match definition {
            Definition::Expression(expression) => self.compute(expression, depth + 1)?,
            Definition::After(None, offset) => offset,
            Definition::After(Some(base), offset) => {
                let base = self.entries[base].name;
                let base = self.lookup(base, span, depth + 1)?;
                let value = base.checked_add(offset);
                value.ok_or_else(|| Fault::new(span, overflow()))?
            }
        };
        self.entries[index].state = State::Known(value);
        Ok(value)
    }

    /// `depth` counts constants; an expression's own depth is bounded by the parser.
    fn compute(&mut self, expression: &Expression, depth: usize) -> Result<i64, Fault> {
        let fault = |message: String| Fault::new(expression.span, message);
        if depth > MAX_FORWARD_CONSTANTS {
            return Err(fault(format!(
                "more than {MAX_FORWARD_CONSTANTS} constants are defined one by another: put them in order"
            )));
        }
        match &expression.kind {
            ExpressionKind::Number(number, _) => {
                i64::try_from(*number).map_err(|_| fault(overflow()))
            }
            ExpressionKind::Name(name) => self.lookup(name, expression.span, depth),
            ExpressionKind::Negative(of) => {
                let of = self.compute(of, depth)?;
                of.checked_neg().ok_or_else(|| fault(overflow()))
            }
            ExpressionKind::Binary(Operator::Divide, left, right) => {
                let left = self.compute(left, depth)?;
                let right = self.compute(right, depth)?;
                let quotient = left.checked_div(right);
                quotient.ok_or_else(|| fault("this divides by zero or exceeds 64 bits".to_owned()))
            }
            ExpressionKind::Binary(operator, left, right) => {
                let left = self.compute(left, depth)?;
                let right = self.compute(right, depth)?;
                let result = match operator {
                    Operator::Or => Some(left | right),
                    Operator::ShiftLeft => shift_left(left, right),
                    Operator::Add => left.checked_add(right),
                    Operator::Subtract => left.checked_sub(right),
                    Operator::Multiply => left.checked_mul(right),
                    Operator::Divide => left.checked_div(right),
                };
                result.ok_or_else(|| fault(overflow()))
            }
        }
    }
}

impl Scope {
    fn define(
        &mut self,
        name: &str,
        span: Span,
        specification: &Specification,
    ) -> Result<(), Fault> {
        if let Some(first) = self.0.insert(name.to_owned(), span) {
            let line = specification.source.line(first.start);
            let message = format!("`{name}` is defined twice, the first time in line {line}");
            return Err(Fault::new(span, message));
        }
        Ok(())
    }
}

fn overflow() -> String {
    "the value exceeds 64 bits with sign".to_owned()
}

/// None if bits are lost, or if the width is none.
fn shift_left(value: i64, width: i64) -> Option<i64> {
    let width = u32::try_from(width).ok()?;
    let shifted = value.checked_shl(width)?;
    (shifted >> width == value).then_some(shifted)
}
