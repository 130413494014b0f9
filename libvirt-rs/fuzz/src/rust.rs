//! Generated code, as far as it can be judged without a compiler: it is Rust, and no two things have one name.

use std::collections::HashSet;

use syn::{Fields, ImplItem, Item, Type};

/// Looks at a generated file.
///
/// # Panics
/// It would not compile.
pub(crate) fn check(code: &str) {
    let file = match syn::parse_file(code) {
        Ok(file) => file,
        Err(error) => panic!("{error}\nin\n{code}"),
    };
    let mut names = Names::default();
    for item in &file.items {
        names.take(item);
    }
    if let Some(twice) = names.twice {
        panic!("{twice} is there twice in\n{code}");
    }
}

/// The names that are taken, with what they are within.
#[derive(Default)]
struct Names {
    taken: HashSet<String>,
    twice: Option<String>,
}

// === impl Names ===

impl Names {
    fn take(&mut self, item: &Item) {
        match item {
            Item::Const(of) => self.name("value", &of.ident),
            Item::Static(of) => self.name("value", &of.ident),
            Item::Fn(of) => self.name("value", &of.sig.ident),
            Item::Type(of) => self.name("type", &of.ident),
            Item::Struct(of) => {
                self.name("type", &of.ident);
                self.fields(&of.ident.to_string(), &of.fields);
            }
            Item::Enum(of) => {
                self.name("type", &of.ident);
                for variant in &of.variants {
                    let within = of.ident.to_string();
                    self.name(&within, &variant.ident);
                    self.fields(&format!("{within}::{}", variant.ident), &variant.fields);
                }
            }
            Item::Impl(of) if of.trait_.is_none() => {
                let Type::Path(path) = &*of.self_ty else {
                    return;
                };
                let within = path.path.segments.last().map(|last| last.ident.to_string());
                let within = format!("impl {}", within.unwrap_or_default());
                for item in &of.items {
                    match item {
                        ImplItem::Const(of) => self.name(&within, &of.ident),
                        ImplItem::Fn(of) => self.name(&within, &of.sig.ident),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, within: &str, fields: &Fields) {
        for field in fields {
            if let Some(name) = &field.ident {
                self.name(within, name);
            }
        }
    }

    fn name(&mut self, within: &str, name: &syn::Ident) {
        let name = format!("{within} {name}");
        if !self.taken.insert(name.clone()) {
            self.twice = Some(name);
        }
    }
}
