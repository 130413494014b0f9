//! Interface files: from any text to a syntax tree, a model, Rust, and back to text.
//!
//! The input is the file. What is rendered from a model is read as the same model, and a second rendering is the same
//! text. Whatever code is generated is Rust, without names that are there twice.

use libvirt_codegen::{Model, Options, generate, parse, render};

use crate::{
    limits::{BASE, PARSED},
    memory, rust,
};

/// Reads the input, and says whether it has a meaning.
///
/// # Panics
/// A promise was broken.
pub fn run(input: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(input) else {
        return false;
    };
    memory::bounded(BASE + PARSED * text.len(), || check(text))
}

fn check(text: &str) -> bool {
    let specification = match parse(text) {
        Ok(specification) => specification,
        Err(error) => return shown(&error),
    };
    let options = Options::libvirt();
    let model = match Model::new(&specification, &options) {
        Ok(model) => model,
        Err(error) => return shown(&error),
    };
    rendered(&model, &options);
    for wire in [true, false] {
        match generate(&model, &options.clone().wire(wire)) {
            Ok(code) => rust::check(&code),
            Err(error) => {
                let said = error.to_string();
                assert!(!said.contains("would be no Rust"), "{said}");
            }
        }
    }
    true
}

/// What is rendered is the model.
fn rendered(model: &Model, options: &Options) {
    let text = render(model);
    let again = parse(&text).and_then(|specification| Model::new(&specification, options));
    match again {
        Ok(again) => {
            assert!(
                again == *model,
                "{again:#?}\nwas read from\n{text}\nwhich was rendered from\n{model:#?}"
            );
            assert_eq!(render(&again), text, "rendered twice");
        }
        Err(error) => panic!("{error}\nin\n{text}\nwhich was rendered from\n{model:#?}"),
    }
}

/// An error has a text.
fn shown(error: &libvirt_codegen::Error) -> bool {
    assert!(!error.to_string().is_empty());
    false
}
