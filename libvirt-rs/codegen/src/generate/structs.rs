//! Constants, typedefs and structs.

use std::collections::HashMap;

use proc_macro2::{Literal, TokenStream};
use quote::quote;

use crate::{
    error::Error,
    model::{Constant, Field, Form, TypeDefinition, Value},
    names, render,
};

use super::{
    Doc, Output,
    context::{Context, unique},
};

/// What the impls of all structs have in common.
pub(super) const SUPPORT: &str = r#"
/// A struct's fields in turn, each in its codec. Only a sequence is read back: XDR has no names.
macro_rules! xdr_struct {
    ($name:ident [$count:literal] { $($index:literal $field:ident $key:literal $codec:ty;)* }) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct as _;
                let mut fields = serializer.serialize_struct(stringify!($name), $count)?;
                $(fields.serialize_field($key, &xdr::Ref::<'_, $codec>(&self.$field))?;)*
                fields.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // No type is called so: it would be `Fields`.
                struct Fields_;
                impl<'de> serde::de::Visitor<'de> for Fields_ {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("struct ", stringify!($name)))
                    }
                    #[inline]
                    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut fields: A) -> Result<$name, A::Error> {
                        Ok($name { $($field: element::<$codec, A>(&mut fields, $index, &self)?,)* })
                    }
                }
                deserializer.deserialize_struct(stringify!($name), &[$($key),*], Fields_)
            }
        }
    };
}
"#;

/// `const NAME = value;`
pub(super) fn constant(constant: &Constant) -> TokenStream {
    let Constant { name, value, docs } = constant;
    let ident = names::ident(name);
    let doc = Doc::new(format!("`const {name} = {}`", value.text), docs);
    let of = match value.number {
        0.. if u32::try_from(value.number).is_ok() => quote!(u32),
        _ if i32::try_from(value.number).is_ok() => quote!(i32),
        _ => quote!(i64),
    };
    let literal = number(value);
    quote!(#doc pub const #ident: #of = #literal;)
}

/// In hexadecimal if the file has it so.
fn number(value: &Value) -> TokenStream {
    let hexadecimal = value.text.starts_with("0x");
    let written: Option<Literal> = hexadecimal.then(|| value.text.parse().ok()).flatten();
    match written {
        Some(written) => quote!(#written),
        None => {
            let number = Literal::i64_unsuffixed(value.number);
            quote!(#number)
        }
    }
}

/// `typedef declaration;`
pub(super) fn typedef(
    context: &Context<'_>,
    output: &mut Output,
    definition: &TypeDefinition,
    form: &Form,
) -> Result<(), Error> {
    let name = names::ident(&context.type_name(&definition.name));
    let declaration = render::declaration(form, &definition.name);
    let doc = Doc::new(format!("`typedef {declaration}`"), &definition.docs);
    let of = context.rust(form)?;
    output.items(&definition.name, quote!(#doc pub type #name = #of;))
}

/// `struct name { … };`
pub(super) fn structure(
    context: &Context<'_>,
    output: &mut Output,
    definition: &TypeDefinition,
    role: Option<&str>,
    fields: &[Field],
) -> Result<(), Error> {
    let name = names::ident(&context.type_name(&definition.name));
    let doc = Doc::of_type("struct", definition, role);
    let derives = context.derives(definition);
    let debug = context.debug(definition);
    let mut taken = HashMap::new();
    let mut members = TokenStream::new();
    let mut entries = String::new();
    for (index, field) in fields.iter().enumerate() {
        let snake = names::snake(&field.name);
        unique(&mut taken, &snake, &field.name)?;
        let ident = names::ident(&snake);
        let doc = Doc::of_field(field);
        let rust = context.rust(&field.form)?;
        members.extend(quote!(#doc pub #ident: #rust,));
        let codec = compact(&context.codec(&field.form)?);
        entries.push_str(&format!("        {index} {ident} {snake:?} {codec};\n"));
    }
    output.items(
        &definition.name,
        quote!(#doc #derives pub struct #name { #members } #debug),
    )?;
    let count = fields.len();
    output.text(&format!(
        "xdr_struct! {{\n    {name} [{count}] {{\n{entries}    }}\n}}\n"
    ));
    Ok(())
}

/// A type without the spaces that a token stream's text has.
fn compact(tokens: &TokenStream) -> String {
    let text = tokens.to_string();
    let text = text.replace(" :: ", "::").replace(" < ", "<");
    text.replace(" >", ">").replace(" ,", ",")
}
