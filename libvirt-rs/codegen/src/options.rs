//! What a file's own text does not tell.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Model, TypeDefinition};

/// What an interface file stands on, and what is made of it.
///
/// The same options go to [`Model::new`] and to [`generate`](crate::generate).
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) constants: BTreeMap<String, i64>,
    pub(crate) imports: Vec<Import>,
    pub(crate) wire: bool,
    pub(crate) client: bool,
    /// The path of a trait that plain enums implement.
    pub(crate) enumeration: Option<String>,
    /// Types whose content no `Debug` shows, by their names in the file.
    pub(crate) secrets: BTreeSet<String>,
}

/// A model whose types and constants may be used, and the Rust module where its code is.
#[derive(Debug, Clone)]
pub(crate) struct Import {
    pub(crate) module: String,
    pub(crate) model: Model,
    /// Whether its types go over the wire, too.
    pub(crate) wire: bool,
}

/// What libvirt's interface files take from its C headers.
const LIBVIRT: &[(&str, i64)] = &[
    ("VIR_UUID_BUFLEN", 16),
    ("VIR_SECURITY_MODEL_BUFLEN", 257),
    ("VIR_SECURITY_LABEL_BUFLEN", 4097),
    ("VIR_SECURITY_DOI_BUFLEN", 257),
    ("VIR_TYPED_PARAM_INT", 1),
    ("VIR_TYPED_PARAM_UINT", 2),
    ("VIR_TYPED_PARAM_LLONG", 3),
    ("VIR_TYPED_PARAM_ULLONG", 4),
    ("VIR_TYPED_PARAM_DOUBLE", 5),
    ("VIR_TYPED_PARAM_BOOLEAN", 6),
    ("VIR_TYPED_PARAM_STRING", 7),
];

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// A file that stands on nothing, of types that go over the wire.
    pub fn new() -> Self {
        Self {
            constants: BTreeMap::new(),
            imports: Vec::new(),
            wire: true,
            client: true,
            enumeration: None,
            secrets: BTreeSet::new(),
        }
    }

    /// With the constants that libvirt's interface files take from its C headers.
    pub fn libvirt() -> Self {
        let constants = LIBVIRT.iter();
        constants.fold(Self::new(), |options, (name, value)| {
            options.constant(*name, *value)
        })
    }

    /// A constant that is defined outside of interface files. One of the same name in the file takes its place.
    #[must_use]
    pub fn constant(mut self, name: impl Into<String>, value: i64) -> Self {
        self.constants.insert(name.into(), value);
        self
    }

    /// A file whose types and constants this one may use, and the path of the module that holds its generated code,
    /// such as `crate::raw::remote`. Of several with the same name, the last one's is taken.
    #[must_use]
    pub fn import(self, module: impl Into<String>, model: Model) -> Self {
        self.import_as(module, model, true)
    }

    #[must_use]
    pub(crate) fn import_as(mut self, module: impl Into<String>, model: Model, wire: bool) -> Self {
        let module = module.into();
        self.imports.push(Import {
            module,
            model,
            wire,
        });
        self
    }

    /// Whether the types go over the wire; by default they do.
    ///
    /// If not, the file's enums are values that other fields carry as plain integers: they become types with conversions
    /// from and to integers, sets of flags where they are marked `@flags`.
    #[must_use]
    pub fn wire(mut self, wire: bool) -> Self {
        self.wire = wire;
        self
    }

    /// Whether the program's procedures become methods of a client; by default they do.
    #[must_use]
    pub fn client(mut self, client: bool) -> Self {
        self.client = client;
        self
    }

    /// A trait that the enums implement that are not wire types, by its path, such as `crate::Enumeration`. It must have the
    /// functions `from_raw(i32) -> Option<Self>` and `as_raw(self) -> i32`, which each enum has in any case.
    #[must_use]
    pub fn enumeration(mut self, path: impl Into<String>) -> Self {
        self.enumeration = Some(path.into());
        self
    }

    /// A struct or union, by its name in the file, that holds a password or a key: its `Debug` shows that it is there, and
    /// nothing of what is in it. That holds wherever it is a part of another.
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>) -> Self {
        self.secrets.insert(name.into());
        self
    }

    /// The value of a constant that the file itself does not define.
    pub(crate) fn external(&self, name: &str) -> Option<i64> {
        let imported = self.imports.iter().rev();
        self.constants.get(name).copied().or_else(|| {
            imported
                .filter_map(|import| import.model.value(name))
                .next()
        })
    }

    /// A type that the file itself does not define.
    pub(crate) fn imported(&self, name: &str) -> Option<(&Import, &TypeDefinition)> {
        let mut imports = self.imports.iter().rev();
        imports.find_map(|import| Some((import, import.model.definition(name)?)))
    }
}
