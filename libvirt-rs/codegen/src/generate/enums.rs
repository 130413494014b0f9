//! Enums: those that go over the wire, those that stand for a plain integer, and sets of flags.

use std::collections::HashMap;

use proc_macro2::{Literal, TokenStream};
use quote::quote;

use crate::{
    error::Error,
    model::{Enum, Member, TypeDefinition},
    names,
};

use super::{
    Doc, Output,
    context::{Context, unique},
};

/// `enum name { … };`
pub(super) fn enumeration(
    context: &Context<'_>,
    output: &mut Output,
    definition: &TypeDefinition,
    of: &Enum,
) -> Result<(), Error> {
    if of.flags && !context.options.wire {
        return flags(context, output, definition, of);
    }
    let name = names::ident(&context.type_name(&definition.name));
    let doc = Doc::of_type("enum", definition, None);
    let mut variants = TokenStream::new();
    let mut cases = TokenStream::new();
    let mut aliases = TokenStream::new();
    let mut numbers = HashMap::new();
    let short = short_names(definition, of);
    // The functions that every enum has.
    let functions = ["from_raw", "as_raw"].map(|name| (name.to_owned(), name));
    let mut taken = HashMap::from(functions);
    for (member, short) in of.members.iter().zip(short) {
        let camel = names::upper_camel(short);
        let variant = names::ident(&camel);
        let doc = Doc::of_member(member);
        let literal = number(definition, member)?;
        if let Some(first) = numbers.get(&member.value.number) {
            // Two names of one value: Rust's enums have one.
            let alias = names::ident(short);
            unique(&mut taken, short, &member.name)?;
            aliases.extend(quote!(#doc pub const #alias: Self = Self::#first;));
            continue;
        }
        unique(&mut taken, &camel, &member.name)?;
        variants.extend(quote!(#doc #variant = #literal,));
        cases.extend(quote!(#literal => Some(Self::#variant),));
        numbers.insert(member.value.number, variant);
    }
    let impls = if context.options.wire {
        wire_impls(definition, &name)
    } else {
        trait_impl(context, &name)?
    };
    let items = quote! {
        #doc
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum #name { #variants }

        impl #name {
            #aliases

            /// The member with this number, if it is a known one.
            pub const fn from_raw(value: i32) -> Option<Self> {
                match value {
                    #cases
                    _ => None,
                }
            }

            /// Its number.
            pub const fn as_raw(self) -> i32 {
                self as i32
            }
        }

        #impls
    };
    output.items(&definition.name, items)
}

/// The trait that the options name.
fn trait_impl(context: &Context<'_>, name: &proc_macro2::Ident) -> Result<TokenStream, Error> {
    let Some(path) = &context.options.enumeration else {
        return Ok(TokenStream::new());
    };
    let path: syn::Path = syn::parse_str(path)
        .map_err(|_| Error::generate(path, "the options name it as a trait, and it is no path"))?;
    Ok(quote! {
        impl #path for #name {
            fn from_raw(value: i32) -> Option<Self> {
                Self::from_raw(value)
            }

            fn as_raw(self) -> i32 {
                Self::as_raw(self)
            }
        }
    })
}

fn wire_impls(definition: &TypeDefinition, name: &proc_macro2::Ident) -> TokenStream {
    let unknown = format!("{{value}} is no value of {}", definition.name);
    quote! {
        impl TryFrom<i32> for #name {
            type Error = xdr::Error;

            fn try_from(value: i32) -> Result<Self, xdr::Error> {
                let unknown = || serde::de::Error::custom(format_args!(#unknown));
                Self::from_raw(value).ok_or_else(unknown)
            }
        }

        impl serde::Serialize for #name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_i32(self.as_raw())
            }
        }

        impl<'de> serde::Deserialize<'de> for #name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = <i32 as serde::Deserialize>::deserialize(deserializer)?;
                let unknown = || serde::de::Error::custom(format_args!(#unknown));
                Self::from_raw(value).ok_or_else(unknown)
            }
        }
    }
}

/// A set of bits. Bits that have no name are kept: a newer daemon may know them.
fn flags(
    context: &Context<'_>,
    output: &mut Output,
    definition: &TypeDefinition,
    of: &Enum,
) -> Result<(), Error> {
    let name = names::ident(&context.type_name(&definition.name));
    let doc = Doc::of_type("enum", definition, None);
    let mut constants = String::new();
    let mut taken = HashMap::new();
    for (member, short) in of.members.iter().zip(short_names(definition, of)) {
        unique(&mut taken, short, &member.name)?;
        let constant = names::ident(short);
        let doc = Doc::of_member(member).comments("        ");
        // What an `i32` has as its sign is the highest bit here.
        let bits = member.value.number & i64::from(u32::MAX);
        constants.push_str(&format!("{doc}        const {constant} = {bits:#x};\n"));
    }
    let doc = doc.comments("    ");
    output.text(&format!(
        "bitflags::bitflags! {{\n{doc}    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]\n    \
         pub struct {name}: u32 {{\n{constants}    }}\n}}\n"
    ));
    Ok(())
}

/// The members' names without what they have in common.
fn short_names<'a>(definition: &TypeDefinition, of: &'a Enum) -> Vec<&'a str> {
    let names: Vec<&str> = of
        .members
        .iter()
        .map(|member| member.name.as_str())
        .collect();
    names::members(&definition.name, &names)
}

fn number(definition: &TypeDefinition, member: &Member) -> Result<Literal, Error> {
    let number = i32::try_from(member.value.number).map_err(|_| {
        let why = format!("its member `{}` exceeds 31 bits", member.name);
        Error::generate(&definition.name, why)
    })?;
    Ok(Literal::i32_unsuffixed(number))
}
