//! How the types of an interface file look in Rust.

use std::collections::{HashMap, HashSet};

use proc_macro2::{Literal, TokenStream};
use quote::quote;

use crate::{
    error::Error,
    limits::MAX_DEFAULT_LENGTH,
    model::{Form, Model, Primitive, Type, TypeDefinition, TypeKind, Value, graph},
    names,
    options::Options,
};

/// The functions that generated code has of its own, unless their names are reserved in interface files.
const FUNCTIONS: [&str; 2] = ["arm", "element"];

/// A model, and what else is needed to name its types.
pub(super) struct Context<'a> {
    pub(super) model: &'a Model,
    pub(super) options: &'a Options,
    prefix: String,
    /// The types of the model itself.
    own: HashSet<&'a str>,
    definitions: HashMap<&'a str, &'a TypeDefinition>,
    abilities: HashMap<&'a str, Abilities>,
}

/// What can be derived for a type beside `Debug`, `Clone` and `PartialEq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Abilities {
    /// `Eq`: it holds no float. `Hash` would have no use, and a thousand types take their time to compile.
    exact: bool,
    /// `Default`: it holds no enum, no union and no long array.
    default: bool,
}

impl<'a> Context<'a> {
    pub(super) fn new(model: &'a Model, options: &'a Options) -> Result<Self, Error> {
        // Of types with the same name, the last one counts.
        let imported = options.imports.iter().map(|import| &import.model);
        let types = imported.chain([model]).flat_map(|model| &model.types);
        let definitions = types.map(|of| (of.name.as_str(), of)).collect();
        let context = Self {
            model,
            options,
            prefix: names::prefix(model, options.wire),
            own: model.types.iter().map(|of| of.name.as_str()).collect(),
            abilities: abilities(&definitions),
            definitions,
        };
        context.check_names()?;
        context.check_secrets()?;
        Ok(context)
    }

    /// Different names of the file are different names in Rust.
    fn check_names(&self) -> Result<(), Error> {
        let mut taken = HashMap::new();
        for definition in &self.model.types {
            unique(
                &mut taken,
                &self.type_name(&definition.name),
                &definition.name,
            )?;
        }
        let mut taken = HashMap::new();
        for constant in &self.model.constants {
            let name = &constant.name;
            if FUNCTIONS.contains(&name.as_str()) {
                let why =
                    "in Rust it would have the name of a function that the code needs: rename it";
                return Err(Error::generate(name, why));
            }
            unique(&mut taken, &names::ident(name).to_string(), name)?;
        }
        Ok(())
    }

    /// All that the options call secret is there, for a slip in a name would show what should be hidden.
    fn check_secrets(&self) -> Result<(), Error> {
        for name in &self.options.secrets {
            let kind = self.definitions.get(name.as_str()).map(|of| &of.kind);
            let hides = matches!(kind, Some(TypeKind::Struct(_) | TypeKind::Union(_)));
            if !(hides && self.own.contains(name.as_str())) {
                let why = "the options call it secret, and the file has no such struct or union: \
                           correct the name";
                return Err(Error::generate(name, why));
            }
        }
        Ok(())
    }

    /// No type has a name that is needed otherwise.
    pub(super) fn check_free(&self, rust: &str, what: &str) -> Result<(), Error> {
        let mut types = self.model.types.iter();
        match types.find(|of| self.type_name(&of.name) == rust) {
            Some(taken) => {
                let why = format!("in Rust its name would be that of {what}, `{rust}`: rename it");
                Err(Error::generate(&taken.name, why))
            }
            None => Ok(()),
        }
    }

    /// A type of this model.
    pub(super) fn type_name(&self, name: &str) -> String {
        names::type_name(name, &self.prefix)
    }

    /// A type of this model or of an imported one.
    pub(super) fn path(&self, name: &str) -> Result<TokenStream, Error> {
        if self.own.contains(name) {
            let name = names::ident(&self.type_name(name));
            return Ok(quote!(#name));
        }
        let Some((import, _)) = self.options.imported(name) else {
            let why = "its type is in no file that the options name: give both the same options";
            return Err(Error::generate(name, why));
        };
        if !import.wire {
            let why = "it stands for a plain integer and does not go over the wire: use `int`";
            return Err(Error::generate(name, why));
        }
        let module: syn::Path = syn::parse_str(&import.module).map_err(|_| {
            Error::generate(name, format!("`{}` is no path of a module", import.module))
        })?;
        let name = names::ident(&names::type_name(name, &names::prefix(&import.model, true)));
        Ok(quote!(#module::#name))
    }

    /// The Rust type of a field. Typedefs of text and of what may be missing are spelt out: `Option<NonnullDomain>` says
    /// more than `Domain`.
    pub(super) fn rust(&self, form: &Form) -> Result<TokenStream, Error> {
        Ok(match form {
            Form::Plain(of) => self.rust_element(of)?,
            Form::Optional(of) => {
                let inner = self.rust_element(of)?;
                if self.is_recursive(of) {
                    quote!(Option<Box<#inner>>)
                } else {
                    quote!(Option<#inner>)
                }
            }
            Form::Fixed(of, length) => {
                let inner = self.rust_element(of)?;
                let length = literal(length);
                quote!([#inner; #length])
            }
            Form::Variable(of, _) => {
                let inner = self.rust_element(of)?;
                quote!(Vec<#inner>)
            }
            Form::Text(_) => quote!(String),
            Form::FixedOpaque(length) => {
                let length = literal(length);
                quote!([u8; #length])
            }
            Form::Opaque(_) => quote!(Vec<u8>),
        })
    }

    fn rust_element(&self, of: &Type) -> Result<TokenStream, Error> {
        let name = match of {
            Type::Primitive(primitive) => return Ok(rust_primitive(*primitive)),
            Type::Named(name) => name,
        };
        match self.typedef(name) {
            Some(form @ (Form::Text(_) | Form::Optional(_))) => self.rust(form),
            _ => self.path(name),
        }
    }

    /// The codec of a field, with all typedefs spelt out.
    pub(super) fn codec(&self, form: &Form) -> Result<TokenStream, Error> {
        Ok(match form {
            Form::Plain(of) => self.codec_element(of)?,
            Form::Optional(of) => {
                let inner = self.codec_element(of)?;
                if self.is_recursive(of) {
                    quote!(xdr::Maybe<xdr::Boxed<#inner>>)
                } else {
                    quote!(xdr::Maybe<#inner>)
                }
            }
            Form::Fixed(of, length) => {
                let inner = self.codec_element(of)?;
                let length = literal(length);
                quote!(xdr::FixedList<#inner, #length>)
            }
            Form::Variable(of, max) => {
                let inner = self.codec_element(of)?;
                let max = bound(max.as_ref());
                quote!(xdr::List<#inner, #max>)
            }
            Form::Text(max) => {
                let max = bound(max.as_ref());
                quote!(xdr::Text<#max>)
            }
            Form::FixedOpaque(length) => {
                let length = literal(length);
                quote!(xdr::FixedOpaque<#length>)
            }
            Form::Opaque(max) => {
                let max = bound(max.as_ref());
                quote!(xdr::Opaque<#max>)
            }
        })
    }

    fn codec_element(&self, of: &Type) -> Result<TokenStream, Error> {
        let plain = match of {
            Type::Primitive(primitive) => rust_primitive(*primitive),
            Type::Named(name) => match self.typedef(name) {
                // The model has found no typedef that leads to itself.
                Some(form) => return self.codec(form),
                None => self.path(name)?,
            },
        };
        Ok(quote!(xdr::Plain<#plain>))
    }

    fn typedef(&self, name: &str) -> Option<&'a Form> {
        match &self.definitions.get(name)?.kind {
            TypeKind::Typedef(form) => Some(form),
            _ => None,
        }
    }

    /// Whether a union's discriminant is an `unsigned int`. On the wire, enums and bools are ints.
    pub(super) fn is_unsigned(&self, discriminant: &Form) -> bool {
        match discriminant {
            Form::Plain(Type::Primitive(primitive)) => *primitive == Primitive::UnsignedInt,
            // The model has found no typedef that leads to itself.
            Form::Plain(Type::Named(name)) => self
                .typedef(name)
                .is_some_and(|form| self.is_unsigned(form)),
            _ => false,
        }
    }

    fn is_recursive(&self, of: &Type) -> bool {
        let Type::Named(name) = of else {
            return false;
        };
        if self.own.contains(name.as_str()) {
            return self.model.recursive.contains(name);
        }
        let imported = self.options.imported(name);
        imported.is_some_and(|(import, _)| import.model.recursive.contains(name))
    }

    /// `#[derive(…)]` with all that a type can have, but for a secret's `Debug`.
    pub(super) fn derives(&self, definition: &TypeDefinition) -> TokenStream {
        let abilities = self.abilities.get(definition.name.as_str());
        let exact = abilities.is_some_and(|abilities| abilities.exact);
        let default = abilities.is_some_and(|abilities| abilities.default);
        let exact = exact.then(|| quote!(, Eq));
        let default = default.then(|| quote!(, Default));
        let debug = (!self.is_secret(definition)).then(|| quote!(Debug,));
        quote!(#[derive(#debug Clone, PartialEq #exact #default)])
    }

    /// The `Debug` of a secret; of other types it is derived.
    pub(super) fn debug(&self, definition: &TypeDefinition) -> TokenStream {
        if !self.is_secret(definition) {
            return TokenStream::new();
        }
        let rust = self.type_name(&definition.name);
        let name = names::ident(&rust);
        quote! {
            /// Shows nothing of what is in it.
            impl std::fmt::Debug for #name {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.debug_struct(#rust).finish_non_exhaustive()
                }
            }
        }
    }

    fn is_secret(&self, definition: &TypeDefinition) -> bool {
        self.options.secrets.contains(&definition.name)
    }
}

/// Takes a Rust name for something of the file.
pub(super) fn unique<'a>(
    taken: &mut HashMap<String, &'a str>,
    rust: &str,
    name: &'a str,
) -> Result<(), Error> {
    if let Some(other) = taken.insert(rust.to_owned(), name) {
        let why = format!("in Rust both it and `{other}` would be `{rust}`: rename one of them");
        return Err(Error::generate(name, why));
    }
    Ok(())
}

/// A length or bound. The model has found it not to be negative.
pub(super) fn literal(value: &Value) -> Literal {
    Literal::u64_unsuffixed(value.number.unsigned_abs())
}

fn bound(max: Option<&Value>) -> TokenStream {
    match max {
        Some(max) => {
            let max = literal(max);
            quote!(#max)
        }
        None => quote!({ usize::MAX }),
    }
}

fn rust_primitive(primitive: Primitive) -> TokenStream {
    match primitive {
        Primitive::Int => quote!(i32),
        Primitive::UnsignedInt => quote!(u32),
        Primitive::Hyper => quote!(i64),
        Primitive::UnsignedHyper => quote!(u64),
        Primitive::Short => quote!(i16),
        Primitive::UnsignedShort => quote!(u16),
        Primitive::Char => quote!(i8),
        Primitive::UnsignedChar => quote!(u8),
        Primitive::Float => quote!(f32),
        Primitive::Double => quote!(f64),
        Primitive::Bool => quote!(bool),
    }
}

/// What can be derived for each type. Types may contain one another in circles, so that everything is assumed at first,
/// and taken back until nothing changes any more.
fn abilities<'a>(definitions: &HashMap<&'a str, &TypeDefinition>) -> HashMap<&'a str, Abilities> {
    let all = Abilities {
        exact: true,
        default: true,
    };
    let mut abilities: HashMap<&str, Abilities> =
        definitions.keys().map(|name| (*name, all)).collect();
    loop {
        let mut changed = false;
        for (name, definition) in definitions {
            let mut own = Abilities {
                exact: true,
                default: !matches!(definition.kind, TypeKind::Enum(_) | TypeKind::Union(_)),
            };
            for form in graph::forms(definition) {
                let form = of_form(form, &abilities);
                own.exact &= form.exact;
                own.default &= form.default;
            }
            changed |= abilities.insert(name, own) != Some(own);
        }
        if !changed {
            return abilities;
        }
    }
}

fn of_form(form: &Form, known: &HashMap<&str, Abilities>) -> Abilities {
    let element = match form.element() {
        None => Abilities {
            exact: true,
            default: true,
        },
        Some(Type::Primitive(primitive)) => Abilities {
            exact: !matches!(primitive, Primitive::Float | Primitive::Double),
            default: true,
        },
        Some(Type::Named(name)) => known.get(name.as_str()).copied().unwrap_or(Abilities {
            exact: false,
            default: false,
        }),
    };
    let default = match form {
        Form::Plain(_) => element.default,
        Form::Fixed(_, length) | Form::FixedOpaque(length) => {
            element.default && length.number <= MAX_DEFAULT_LENGTH
        }
        Form::Optional(_) | Form::Variable(_, _) | Form::Text(_) | Form::Opaque(_) => true,
    };
    Abilities { default, ..element }
}
