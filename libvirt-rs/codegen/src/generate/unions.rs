//! Unions: enums whose variants carry values.

use std::collections::HashMap;

use proc_macro2::{Ident, Literal, TokenStream};
use quote::quote;

use crate::{
    error::Error,
    model::{Docs, Field, TypeDefinition, Union, Value},
    names, render,
};

use super::{
    Doc, Output,
    context::{Context, unique},
};

/// For unions with values.
pub(super) const ARM: &str = r#"
/// A union's discriminant and what comes with it.
fn arm<C: xdr::Codec, S: serde::Serializer>(
    serializer: S,
    case: impl serde::Serialize,
    value: &C::Value,
) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeTuple as _;
    let mut pair = serializer.serialize_tuple(2)?;
    pair.serialize_element(&case)?;
    pair.serialize_element(&xdr::Ref::<'_, C>(value))?;
    pair.end()
}
"#;

/// For unions in which a case has none.
pub(super) const VOID: &str = r#"
/// A union's discriminant with which nothing comes.
fn void<S: serde::Serializer>(serializer: S, case: impl serde::Serialize) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeTuple as _;
    let mut alone = serializer.serialize_tuple(1)?;
    alone.serialize_element(&case)?;
    alone.end()
}
"#;

/// Whether a union has cases with values, and cases without.
pub(super) fn kinds(union: &Union) -> (bool, bool) {
    let arms = union.arms.iter().map(|arm| &arm.field);
    let fields: Vec<_> = arms.chain(&union.default).collect();
    let some = fields.iter().any(|field| field.is_some());
    (some, fields.iter().any(|field| field.is_none()))
}

/// The variant for values of the discriminant that have no arm of their own.
const DEFAULT: &str = "Other";

/// A variant in the making.
struct Variant<'a> {
    name: Ident,
    doc: Doc,
    label: &'a Value,
    field: Option<&'a Field>,
}

/// `union name switch (…) { … };`
pub(super) fn union(
    context: &Context<'_>,
    output: &mut Output,
    definition: &TypeDefinition,
    union: &Union,
) -> Result<(), Error> {
    let name = names::ident(&context.type_name(&definition.name));
    let doc = Doc::of_type("union", definition, None);
    let derives = context.derives(definition);
    let debug = context.debug(definition);
    let unsigned = context.is_unsigned(&union.discriminant.form);
    let case = if unsigned { quote!(u32) } else { quote!(i32) };
    let variants = variants(definition, union)?;
    let mut declared = TokenStream::new();
    let mut written = TokenStream::new();
    let mut read = TokenStream::new();
    for variant in &variants {
        let Variant {
            name, doc, field, ..
        } = variant;
        let label = Literal::i64_unsuffixed(variant.label.number);
        let typed = typed(variant.label.number, unsigned);
        let Some(field) = field else {
            declared.extend(quote!(#doc #name,));
            written.extend(quote!(Self::#name => void(serializer, #typed),));
            read.extend(quote!(#label => Ok(Self::Value::#name),));
            continue;
        };
        let rust = context.rust(&field.form)?;
        let codec = context.codec(&field.form)?;
        declared.extend(quote!(#doc #name(#rust),));
        written.extend(quote!(Self::#name(value) => arm::<#codec, S>(serializer, #typed, value),));
        read.extend(quote! {
            #label => Ok(Self::Value::#name(element::<#codec, A>(&mut sequence, 1, &self)?)),
        });
    }
    let labels: Vec<Literal> = variants
        .iter()
        .map(|variant| Literal::i64_unsuffixed(variant.label.number))
        .collect();
    let default = default(context, definition, union, &case, &labels)?;
    declared.extend(default.declared);
    written.extend(default.written);
    read.extend(default.read);
    let expecting = format!("union {name}");
    // No type of a file is called `Arms_`: it would be `Arms`.
    let items = quote! {
        #doc
        #derives
        pub enum #name { #declared }

        #debug

        impl serde::Serialize for #name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { #written }
            }
        }

        impl<'de> serde::Deserialize<'de> for #name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Arms_;
                impl<'de> serde::de::Visitor<'de> for Arms_ {
                    type Value = #name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(#expecting)
                    }
                    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut sequence: A) -> Result<#name, A::Error> {
                        match element::<xdr::Plain<#case>, A>(&mut sequence, 0, &self)? { #read }
                    }
                }
                deserializer.deserialize_tuple(2, Arms_)
            }
        }
    };
    output.items(&definition.name, items)
}

/// A case as a literal of its type. The model has found it to be in range.
fn typed(case: i64, unsigned: bool) -> Literal {
    let suffix = if unsigned { "u32" } else { "i32" };
    let text = format!("{case}{suffix}");
    text.parse().unwrap_or(Literal::i64_unsuffixed(case))
}

/// One for each label: two labels of one arm are two different values.
fn variants<'a>(definition: &TypeDefinition, union: &'a Union) -> Result<Vec<Variant<'a>>, Error> {
    let labels: Vec<&Value> = union.arms.iter().flat_map(|arm| &arm.labels).collect();
    let named: Vec<&str> = labels
        .iter()
        .map(|label| label.text.as_str())
        .filter(|text| text.starts_with(|first: char| first.is_ascii_alphabetic()))
        .collect();
    let short = names::members(&definition.name, &named);
    let short: HashMap<&str, &str> = named.into_iter().zip(short).collect();
    let mut taken = HashMap::new();
    if union.default.is_some() {
        unique(&mut taken, DEFAULT, "default")?;
    }
    let mut variants = Vec::new();
    for arm in &union.arms {
        for label in &arm.labels {
            // An expression is no name.
            let own = short
                .get(label.text.as_str())
                .map(|short| names::upper_camel(short));
            let own = own.filter(|own| syn::parse_str::<Ident>(own).is_ok());
            let name = own.unwrap_or_else(|| numbered(label.number));
            unique(&mut taken, &name, &label.text)?;
            let what = arm.field.as_ref().map_or("void".to_owned(), |field| {
                render::declaration(&field.form, &field.name)
            });
            let docs = arm.field.as_ref().map(|field| field.docs.clone());
            variants.push(Variant {
                name: names::ident(&name),
                doc: Doc::new(
                    format!("`case {}: {what}`", label.text),
                    &docs.unwrap_or_default(),
                ),
                label,
                field: arm.field.as_ref(),
            });
        }
    }
    Ok(variants)
}

/// What a case is called that is a mere number.
fn numbered(number: i64) -> String {
    let sign = if number < 0 { "Minus" } else { "" };
    format!("Case{sign}{}", number.unsigned_abs())
}

/// The last variant and its parts of the two matches.
struct Fallback {
    declared: TokenStream,
    written: TokenStream,
    read: TokenStream,
}

fn default(
    context: &Context<'_>,
    definition: &TypeDefinition,
    union: &Union,
    case: &TokenStream,
    labels: &[Literal],
) -> Result<Fallback, Error> {
    let Some(field) = &union.default else {
        let unknown = format!("{{other}} is no case of {}", definition.name);
        return Ok(Fallback {
            declared: TokenStream::new(),
            written: TokenStream::new(),
            read: quote!(other => Err(serde::de::Error::custom(format_args!(#unknown))),),
        });
    };
    let name = names::ident(DEFAULT);
    let clash = format!("{{case}} is a case of its own in {}", definition.name);
    let listed = match labels {
        [label] => quote!(#label),
        labels => quote!((#(#labels)|*)),
    };
    let refuse = quote! {
        Self::#name(case @ #listed, ..) => {
            Err(serde::ser::Error::custom(format_args!(#clash)))
        }
    };
    let Some(field) = field else {
        let doc = Doc::new("`default: void`: the discriminant alone.", &Docs::default());
        return Ok(Fallback {
            declared: quote!(#doc #name(#case),),
            written: quote!(#refuse Self::#name(case) => void(serializer, case),),
            read: quote!(other => Ok(Self::Value::#name(other)),),
        });
    };
    let rust = context.rust(&field.form)?;
    let codec = context.codec(&field.form)?;
    let declaration = render::declaration(&field.form, &field.name);
    let doc = Doc::new(
        format!("`default: {declaration}`, with the discriminant."),
        &field.docs,
    );
    Ok(Fallback {
        declared: quote!(#doc #name(#case, #rust),),
        written: quote!(#refuse Self::#name(case, value) => arm::<#codec, S>(serializer, case, value),),
        read: quote! {
            other => Ok(Self::Value::#name(other, element::<#codec, A>(&mut sequence, 1, &self)?)),
        },
    })
}
