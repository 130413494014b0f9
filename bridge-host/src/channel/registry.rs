//! Protocols by name: a program's configuration names one, and gets a conversation of its own.

use std::{
    collections::BTreeMap,
    fmt::{self, Formatter},
};

use super::{Protocol, ProtocolError, VirtioSerialBuilder};
use crate::limits::MAX_PROTOCOLS;

type Factory = Box<dyn Fn() -> Box<dyn Protocol> + Send + Sync>;

/// Protocols by name, no more than [`MAX_PROTOCOLS`].
#[derive(Default)]
pub struct ProtocolRegistry {
    factories: BTreeMap<String, Factory>,
}

// === impl ProtocolRegistry ===

impl ProtocolRegistry {
    /// A registry without protocols.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a protocol. `make` makes a conversation that is not connected yet.
    ///
    /// # Errors
    /// The name is taken, or the registry is full.
    pub fn register(
        &mut self,
        name: impl Into<String>,
        make: impl Fn() -> Box<dyn Protocol> + Send + Sync + 'static,
    ) -> Result<(), ProtocolError> {
        let name = name.into();
        if self.factories.contains_key(&name) {
            return Err(ProtocolError::DuplicateProtocol(name));
        }
        if self.factories.len() >= MAX_PROTOCOLS {
            return Err(ProtocolError::TooManyProtocols);
        }
        self.factories.insert(name, Box::new(make));
        Ok(())
    }

    /// Adds what is built like this.
    ///
    /// # Errors
    /// As [`ProtocolRegistry::register`].
    pub fn register_serial(
        &mut self,
        name: impl Into<String>,
        builder: VirtioSerialBuilder,
    ) -> Result<(), ProtocolError> {
        self.register(name, move || Box::new(builder.clone().build()))
    }

    /// Removes a protocol; whether it was there. Conversations that were made go on.
    pub fn remove(&mut self, name: &str) -> bool {
        self.factories.remove(name).is_some()
    }

    /// A new conversation, which is not connected yet.
    ///
    /// # Errors
    /// There is no such protocol.
    pub fn create(&self, name: &str) -> Result<Box<dyn Protocol>, ProtocolError> {
        let make = self.factories.get(name);
        let make = make.ok_or_else(|| ProtocolError::NoProtocol {
            name: name.to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })?;
        Ok(make())
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }
}

impl fmt::Debug for ProtocolRegistry {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_made_anew_for_each_who_asks_for_its_name() {
        let mut registry = ProtocolRegistry::new();
        let monitoring = VirtioSerialBuilder::new("com.monitoring.sock").with_json_handler();
        registry.register_serial("monitoring", monitoring).unwrap();
        registry
            .register_serial("bytes", VirtioSerialBuilder::new("com.bytes.sock"))
            .unwrap();
        assert_eq!(
            registry.names().collect::<Vec<_>>(),
            ["bytes", "monitoring"]
        );
        assert_eq!(registry.create("monitoring").unwrap().name(), "json");
        assert!(!registry.create("bytes").unwrap().is_connected());
        let error = registry.create("nothing").err().unwrap().to_string();
        assert!(
            error.contains("registered are: bytes, monitoring"),
            "{error}"
        );
        assert!(registry.remove("bytes") && !registry.remove("bytes"));
    }

    #[test]
    fn a_name_is_given_once_and_a_full_registry_says_so() {
        let mut registry = ProtocolRegistry::new();
        let add = |registry: &mut ProtocolRegistry, name: usize| {
            registry.register_serial(name.to_string(), VirtioSerialBuilder::new("a"))
        };
        for name in 0..MAX_PROTOCOLS {
            add(&mut registry, name).unwrap();
        }
        let error = add(&mut registry, 0).unwrap_err();
        assert!(matches!(error, ProtocolError::DuplicateProtocol(name) if name == "0"));
        let error = add(&mut registry, MAX_PROTOCOLS).unwrap_err();
        assert!(matches!(error, ProtocolError::TooManyProtocols));
    }
}
