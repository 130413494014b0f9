//! From a syntax tree to a model.

use std::collections::{HashMap, HashSet};

use crate::{
    ast::{self, ItemKind, Specification, SpecifierKind},
    error::{Error, Span},
    limits::MAX_FIXED_LENGTH,
    options::Options,
};

use super::{
    Arm, Constant, Enum, Field, Form, Member, Model, Primitive, Type, TypeDefinition, TypeKind,
    Union, Value,
    constants::Names,
    docs::{self, Notes},
    graph::Graph,
    procedures,
};

/// What is wrong, before the file that it is in has been quoted.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) span: Span,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(span: Span, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { span, message }
    }
}

pub(super) fn resolve(specification: &Specification, options: &Options) -> Result<Model, Error> {
    let model = Resolver::new(specification, options).run(specification);
    Ok(model.map_err(|fault| specification.diagnose(fault.span, fault.message))?)
}

/// The work in progress.
pub(super) struct Resolver<'a> {
    pub(super) names: Names<'a>,
    pub(super) options: &'a Options,
    pub(super) model: Model,
    /// Where each type is defined, and which of the model's it is.
    places: HashMap<String, (Span, usize)>,
    /// The types that are used, and where.
    uses: Vec<(String, Span)>,
}

impl<'a> Resolver<'a> {
    fn new(specification: &'a Specification, options: &'a Options) -> Self {
        Self {
            names: Names::new(specification, options),
            options,
            model: Model::default(),
            places: HashMap::new(),
            uses: Vec::new(),
        }
    }

    fn run(mut self, specification: &'a Specification) -> Result<Model, Fault> {
        self.model.head = docs::head(&specification.comments);
        // Constants and types may be used before they are defined.
        for item in &specification.items {
            self.declare(item)?;
        }
        let mut programs = Vec::new();
        for item in &specification.items {
            match &item.kind {
                ItemKind::Program(_) => programs.push(item),
                ItemKind::Enum(name, members) if procedures::is_program(name, members) => {
                    self.names.define(&name.text, name.span)?;
                    programs.push(item);
                }
                _ => self.define(item)?,
            }
        }
        // Procedures of RFC 5531 name types, too.
        for item in programs {
            procedures::program(&mut self, item)?;
        }
        self.check_uses()?;
        self.model.recursive = Graph::new(&self.model.types)
            .check()
            .map_err(|endless| Fault::new(self.place(&endless.name), endless.message))?;
        self.check_unions()?;
        Ok(self.model)
    }

    /// Takes the names of constants and of members of enums, wherever they are.
    fn declare(&mut self, item: &'a ast::Item) -> Result<(), Fault> {
        match &item.kind {
            ItemKind::Constant(name, value) => self.names.define_constant(name, value),
            ItemKind::Enum(_, members) => self.names.define_members(members),
            ItemKind::Typedef(declaration) => self.declare_within(declaration),
            ItemKind::Struct(_, fields) => fields
                .iter()
                .try_for_each(|field| self.declare_within(field)),
            ItemKind::Union(_, body) => self.declare_arms(body),
            ItemKind::PassThrough(_) | ItemKind::Program(_) => Ok(()),
        }
    }

    fn declare_within(&mut self, declaration: &'a ast::Declaration) -> Result<(), Fault> {
        match &declaration.specifier.kind {
            SpecifierKind::Enum(members) => self.names.define_members(members),
            SpecifierKind::Struct(fields) => fields
                .iter()
                .try_for_each(|field| self.declare_within(field)),
            SpecifierKind::Union(body) => self.declare_arms(body),
            _ => Ok(()),
        }
    }

    fn declare_arms(&mut self, body: &'a ast::UnionBody) -> Result<(), Fault> {
        let arms = body.arms.iter().filter_map(|arm| arm.body.as_ref());
        let default = body.default.iter().flatten();
        let mut fields = [&body.discriminant].into_iter().chain(arms).chain(default);
        fields.try_for_each(|field| self.declare_within(field))
    }

    fn define(&mut self, item: &ast::Item) -> Result<(), Fault> {
        let mut notes = Notes::read(&item.comments);
        match &item.kind {
            ItemKind::Constant(name, value) => {
                let value = self.names.value(value)?;
                self.model.constants.push(Constant {
                    name: name.text.clone(),
                    value,
                    docs: notes.finish()?,
                });
                Ok(())
            }
            ItemKind::Typedef(declaration) => self.typedef(declaration, notes),
            ItemKind::Enum(name, members) => {
                let kind = TypeKind::Enum(self.enumeration(members, &mut notes)?);
                self.push(name, kind, notes)
            }
            ItemKind::Struct(name, fields) => {
                let kind = self.structure(&name.text, fields)?;
                self.push(name, kind, notes)
            }
            ItemKind::Union(name, body) => {
                let kind = self.union(&name.text, body)?;
                self.push(name, kind, notes)
            }
            ItemKind::PassThrough(_) | ItemKind::Program(_) => Ok(()),
        }
    }

    fn push(&mut self, name: &ast::Name, kind: TypeKind, notes: Notes) -> Result<(), Fault> {
        self.names.define(&name.text, name.span)?;
        self.places
            .insert(name.text.clone(), (name.span, self.model.types.len()));
        self.model.types.push(TypeDefinition {
            name: name.text.clone(),
            docs: notes.finish()?,
            kind,
        });
        Ok(())
    }

    /// `typedef struct { … } name;` is `struct name { … };`, and `typedef struct name name;` says nothing new.
    fn typedef(&mut self, declaration: &ast::Declaration, mut notes: Notes) -> Result<(), Fault> {
        let name = &declaration.name;
        if let (SpecifierKind::Named(of), ast::Form::Plain) =
            (&declaration.specifier.kind, &declaration.form)
            && *of == name.text
        {
            self.uses.push((of.clone(), declaration.specifier.span));
            return Ok(());
        }
        let kind = match (&declaration.specifier.kind, &declaration.form) {
            (SpecifierKind::Enum(members), ast::Form::Plain) => {
                TypeKind::Enum(self.enumeration(members, &mut notes)?)
            }
            (SpecifierKind::Struct(fields), ast::Form::Plain) => {
                self.structure(&name.text, fields)?
            }
            (SpecifierKind::Union(body), ast::Form::Plain) => self.union(&name.text, body)?,
            _ => TypeKind::Typedef(self.form(&format!("{}_item", name.text), declaration)?),
        };
        self.push(name, kind, notes)
    }

    fn enumeration(&mut self, members: &[ast::Member], notes: &mut Notes) -> Result<Enum, Fault> {
        let flags = notes.flag("flags")?;
        let mut resolved = Vec::with_capacity(members.len());
        for member in members {
            let value = self.member_value(member)?;
            let fits =
                i32::try_from(value.number).is_ok() || flags && u32::try_from(value.number).is_ok();
            if !fits {
                let message = format!(
                    "an enum's value is an int of 32 bits, {} is none",
                    value.number
                );
                return Err(Fault::new(member.name.span, message));
            }
            resolved.push(Member {
                name: member.name.text.clone(),
                value,
                docs: Notes::read(&member.comments).finish()?,
            });
        }
        let members = resolved;
        Ok(Enum { members, flags })
    }

    pub(super) fn member_value(&mut self, member: &ast::Member) -> Result<Value, Fault> {
        if let Some(value) = &member.value {
            return self.names.value(value);
        }
        let number = self.names.constant(&member.name.text, member.name.span)?;
        let text = number.to_string();
        Ok(Value { number, text })
    }

    fn structure(&mut self, name: &str, fields: &[ast::Declaration]) -> Result<TypeKind, Fault> {
        let mut seen = HashSet::new();
        let fields = fields
            .iter()
            .map(|field| self.field(name, field, &mut seen));
        Ok(TypeKind::Struct(fields.collect::<Result<_, _>>()?))
    }

    fn union(&mut self, name: &str, body: &ast::UnionBody) -> Result<TypeKind, Fault> {
        let mut seen = HashSet::new();
        let discriminant = self.field(name, &body.discriminant, &mut HashSet::new())?;
        let mut labels = HashSet::new();
        let mut arms = Vec::with_capacity(body.arms.len());
        for arm in &body.arms {
            let mut values = Vec::with_capacity(arm.labels.len());
            for label in &arm.labels {
                let value = self.names.value(label)?;
                if !labels.insert(value.number) {
                    let message = format!("the case {} is there twice", value.number);
                    return Err(Fault::new(label.span, message));
                }
                values.push(value);
            }
            let field = arm.body.as_ref();
            arms.push(Arm {
                labels: values,
                field: field
                    .map(|field| self.field(name, field, &mut seen))
                    .transpose()?,
            });
        }
        let default = body.default.as_ref().map(|body| {
            let field = body.as_ref();
            field
                .map(|field| self.field(name, field, &mut seen))
                .transpose()
        });
        Ok(TypeKind::Union(Box::new(Union {
            discriminant,
            arms,
            default: default.transpose()?,
        })))
    }

    fn field(
        &mut self,
        within: &str,
        declaration: &ast::Declaration,
        seen: &mut HashSet<String>,
    ) -> Result<Field, Fault> {
        let name = &declaration.name;
        if !seen.insert(name.text.clone()) {
            let message = format!("`{within}` has two fields `{}`", name.text);
            return Err(Fault::new(name.span, message));
        }
        Ok(Field {
            name: name.text.clone(),
            form: self.form(&format!("{within}_{}", name.text), declaration)?,
            docs: Notes::read(&declaration.comments).finish()?,
        })
    }

    /// `anonymous` is what a body on the spot is called.
    fn form(&mut self, anonymous: &str, declaration: &ast::Declaration) -> Result<Form, Fault> {
        let specifier = &declaration.specifier;
        let bound = match &declaration.form {
            ast::Form::Plain | ast::Form::Optional | ast::Form::Variable(None) => None,
            ast::Form::Fixed(length) => Some(self.length(length, MAX_FIXED_LENGTH)?),
            ast::Form::Variable(Some(bound)) => Some(self.length(bound, i64::from(u32::MAX))?),
        };
        let of = match &specifier.kind {
            SpecifierKind::Text => return Ok(Form::Text(bound)),
            SpecifierKind::Opaque => {
                return Ok(match (&declaration.form, bound) {
                    (ast::Form::Fixed(_), Some(length)) => Form::FixedOpaque(length),
                    (_, bound) => Form::Opaque(bound),
                });
            }
            _ => self.specified(anonymous, declaration.name.span, specifier)?,
        };
        Ok(match (&declaration.form, bound) {
            (ast::Form::Optional, _) => Form::Optional(of),
            (ast::Form::Fixed(_), Some(length)) => Form::Fixed(of, length),
            (ast::Form::Variable(_), bound) => Form::Variable(of, bound),
            _ => Form::Plain(of),
        })
    }

    /// A type that is no array by itself. Bodies on the spot become definitions.
    pub(super) fn specified(
        &mut self,
        anonymous: &str,
        place: Span,
        specifier: &ast::Specifier,
    ) -> Result<Type, Fault> {
        let mut notes = Notes::read(&[]);
        let kind = match &specifier.kind {
            SpecifierKind::Primitive(primitive) => return Ok(Type::Primitive(*primitive)),
            SpecifierKind::Named(name) => {
                self.uses.push((name.clone(), specifier.span));
                return Ok(Type::Named(name.clone()));
            }
            SpecifierKind::Text | SpecifierKind::Opaque => {
                let message = "text and opaque data have no place here: put them into a struct";
                return Err(Fault::new(specifier.span, message));
            }
            SpecifierKind::Enum(members) => TypeKind::Enum(self.enumeration(members, &mut notes)?),
            SpecifierKind::Struct(fields) => self.structure(anonymous, fields)?,
            SpecifierKind::Union(body) => self.union(anonymous, body)?,
        };
        let name = ast::Name {
            text: anonymous.to_owned(),
            span: place,
        };
        self.push(&name, kind, notes)?;
        Ok(Type::Named(name.text))
    }

    fn length(&mut self, expression: &ast::Expression, most: i64) -> Result<Value, Fault> {
        let value = self.names.value(expression)?;
        if (0..=most).contains(&value.number) {
            return Ok(value);
        }
        let message = format!(
            "a length here is from 0 to {most}, {} is none",
            value.number
        );
        Err(Fault::new(expression.span, message))
    }

    fn check_uses(&self) -> Result<(), Fault> {
        let unknown = self.uses.iter().find(|(name, _)| {
            !self.places.contains_key(name) && self.options.imported(name).is_none()
        });
        unknown.map_or(Ok(()), |(name, span)| {
            let message = format!(
                "the type `{name}` is unknown: define it, or name the file that does in the options"
            );
            Err(Fault::new(*span, message))
        })
    }

    fn place(&self, name: &str) -> Span {
        let place = self.places.get(name);
        place.map(|(span, _)| *span).unwrap_or_default()
    }

    fn definition(&self, name: &str) -> Option<&TypeDefinition> {
        if let Some((_, index)) = self.places.get(name) {
            return self.model.types.get(*index);
        }
        let imported = self.options.imported(name);
        imported.map(|(_, definition)| definition)
    }

    /// Discriminants are integers or enums, and the cases are values that they can have.
    fn check_unions(&self) -> Result<(), Fault> {
        for definition in &self.model.types {
            let TypeKind::Union(union) = &definition.kind else {
                continue;
            };
            let place = self.place(&definition.name);
            let fault = |message: String| Err(Fault::new(place, message));
            let Some(discriminant) = self.discriminant(&union.discriminant.form) else {
                return fault(format!(
                    "`{}` switches over what is neither int, unsigned int, bool nor an enum",
                    definition.name
                ));
            };
            let mut labels = union.arms.iter().flat_map(|arm| &arm.labels);
            let wrong = labels.find(|label| !discriminant.contains(label.number));
            if let Some(wrong) = wrong {
                return fault(format!(
                    "`{}` has the case {}, which its discriminant can't have",
                    definition.name, wrong.text
                ));
            }
        }
        Ok(())
    }

    fn discriminant(&self, form: &Form) -> Option<Discriminant<'_>> {
        let mut form = form;
        // `Graph::check` has found no typedef that leads to itself.
        loop {
            let Form::Plain(of) = form else {
                return None;
            };
            let name = match of {
                Type::Primitive(Primitive::Int) => return Some(Discriminant::Int),
                Type::Primitive(Primitive::UnsignedInt) => return Some(Discriminant::UnsignedInt),
                Type::Primitive(Primitive::Bool) => return Some(Discriminant::Bool),
                Type::Primitive(_) => return None,
                Type::Named(name) => name,
            };
            match &self.definition(name)?.kind {
                TypeKind::Typedef(target) => form = target,
                TypeKind::Enum(of) => return Some(Discriminant::Enum(of)),
                TypeKind::Struct(_) | TypeKind::Union(_) => return None,
            }
        }
    }
}

/// What a union switches over.
enum Discriminant<'a> {
    Int,
    UnsignedInt,
    Bool,
    Enum(&'a Enum),
}

impl Discriminant<'_> {
    fn contains(&self, value: i64) -> bool {
        match self {
            Self::Int => i32::try_from(value).is_ok(),
            Self::UnsignedInt => u32::try_from(value).is_ok(),
            Self::Bool => value == 0 || value == 1,
            Self::Enum(of) => of.members.iter().any(|member| member.value.number == value),
        }
    }
}
