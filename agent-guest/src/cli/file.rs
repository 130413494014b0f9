//! The configuration file, as it becomes a layer of the settings.
//!
//! Every value is checked while it is read, so that an error names its line.

use std::{fmt, fs, io, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use vbridge_settings::{FileError, checked, read, unknown_key};

use agent_guest::Upstream;

use super::{
    KEYS, Layer,
    tables::{self, TABLES},
};

/// The key that only a file can have: a table for each upstream.
const UPSTREAM: &str = "upstream";

/// Reads a file that need not exist.
pub(super) fn read_if_there(path: &Path) -> Result<Layer, FileError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Layer::default()),
        _ => read(path),
    }
}

impl<'de> Deserialize<'de> for Layer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LayerVisitor)
    }
}

struct LayerVisitor;

impl<'de> Visitor<'de> for LayerVisitor {
    type Value = Layer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys with values ({})", KEYS.join(", "))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Layer, A::Error> {
        let mut layer = Layer::default();
        let mut seen = Vec::new();
        while let Some(KnownKey(key)) = map.next_key()? {
            if seen.contains(&key) {
                return Err(A::Error::duplicate_field(key));
            }
            seen.push(key);
            map.next_value_seed(Value {
                key,
                layer: &mut layer,
            })?;
        }
        Ok(layer)
    }
}

/// A key that is known; refused here, an unknown one is reported with its line.
struct KnownKey(&'static str);

impl<'de> Deserialize<'de> for KnownKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, |key| {
            let known: Vec<_> = KEYS.into_iter().chain([UPSTREAM]).chain(TABLES).collect();
            let found = known.iter().find(|known| **known == key);
            found
                .map(|known| Self(known))
                .ok_or_else(|| unknown_key(key, &known))
        })
    }
}

/// The value of a key, put where it belongs; refused here, a wrong one is reported with its line.
struct Value<'a> {
    key: &'static str,
    layer: &'a mut Layer,
}

impl<'de> serde::de::DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.key == UPSTREAM {
            self.layer.upstreams = upstreams(deserializer)?;
            return Ok(());
        }
        if TABLES.contains(&self.key) {
            return tables::read(self.key, self.layer, deserializer);
        }
        if self.key == "wait" {
            self.layer.wait = Some(bool::deserialize(deserializer)?);
            return Ok(());
        }
        let Self { key, layer } = self;
        checked(deserializer, |value| {
            layer
                .set(key, value)
                .map_err(|message| format!("{key}: {message}"))
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    services: Vec<String>,
    address: String,
}

fn upstreams<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Upstream>, D::Error> {
    let entries = Vec::<Entry>::deserialize(deserializer)?;
    let upstreams = entries.into_iter().map(|entry| {
        let Entry {
            name,
            services,
            address,
        } = entry;
        Upstream::new(name, services, &address).map_err(D::Error::custom)
    });
    upstreams.collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        (dir, path)
    }

    fn error(name: &str, content: &str) -> String {
        let (dir, path) = file(name, content);
        let error = read::<Layer>(&path).unwrap_err().to_string();
        error.replace(dir.path().to_str().unwrap(), "DIR")
    }

    #[test]
    fn both_formats_say_the_same() {
        let toml = "# all\nchannel = \"c\"\nwait = true\nlisten = \"unix:/run/x\"\nkey_file = \"/k\"\nlog = \"debug\"\n";
        let yaml = "# all\nchannel: c\nwait: true\nlisten: unix:/run/x\nkey_file: /k\nlog: debug\n";
        let (_toml_dir, toml) = file("agent.toml", toml);
        let (_yaml_dir, yaml) = file("agent.yml", yaml);
        let layer: Layer = read(&toml).unwrap();
        assert_eq!(layer, read(&yaml).unwrap());
        assert_eq!(layer.wait, Some(true));
        assert_eq!(layer.listen, Some("/run/x".into()));
    }

    #[test]
    fn upstreams_are_tables_and_each_is_checked() {
        let toml = "log = \"info\"\n[[upstream]]\nname = \"a\"\nservices = [\"org.a.*\", \"org.b.C\"]\naddress = \"unix:/run/a\"\n";
        let yaml = "log: info\nupstream:\n- name: a\n  services: [org.a.*, org.b.C]\n  address: unix:/run/a\n";
        let (_toml_dir, toml_path) = file("agent.toml", toml);
        let (_yaml_dir, yaml_path) = file("agent.yml", yaml);
        let layer: Layer = read(&toml_path).unwrap();
        assert_eq!(layer, read(&yaml_path).unwrap());
        let expected = Upstream::new("a", ["org.a.*", "org.b.C"], "unix:/run/a").unwrap();
        assert_eq!(layer.upstreams, [expected]);
        for (old, new, words) in [
            ("unix:", "tcp:", "no address"),
            ("org.a.*", "org.*.a", "package.Service"),
            ("address", "adress", "adress"),
        ] {
            let text = error("a.toml", &toml.replace(old, new));
            assert!(text.contains(words) && text.contains(", line "), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        for name in ["agent.toml", "agent.yaml"] {
            for content in ["", "# nothing yet\n"] {
                let (_dir, path) = file(name, content);
                assert_eq!(read::<Layer>(&path).unwrap(), Layer::default());
            }
        }
        assert_eq!(
            read_if_there(Path::new("/nonexistent/agent.toml")).unwrap(),
            Layer::default()
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let expected = "line 3: unknown key `chanel`: did you mean `channel`?";
        assert_eq!(
            error("a.toml", "\nlog = \"info\"\nchanel = \"x\"\n"),
            format!("DIR/a.toml, {expected}")
        );
        assert_eq!(
            error("a.yaml", "\nlog: info\nchanel: x\n"),
            format!("DIR/a.yaml, {expected}")
        );
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line() {
        let text = error("a.toml", "log = \"info\"\nlisten = \"/run/x\"\n");
        assert_eq!(
            text,
            "DIR/a.toml, line 2: listen: \"/run/x\" is not of the form unix:PATH"
        );
        let text = error("a.yaml", "log: info\nlisten: /run/x\n");
        assert_eq!(
            text,
            "DIR/a.yaml, line 2: listen: \"/run/x\" is not of the form unix:PATH"
        );
        let text = error("a.toml", "log = \"info\"\nwait = \"sure\"\n");
        assert!(
            text.starts_with("DIR/a.toml, line 2: invalid type"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_configuration_is_one_sentence() {
        for (name, content) in [
            ("a.toml", "channel = \n"),
            ("a.toml", "[channel]\nx = 1\n"),
            ("a.yaml", "- a\n- b\n"),
            ("a.yaml", "a: [b\nc: d"),
            ("a.yaml", "channel: a\nchannel: b\n"),
            ("a.toml", "channel = \"a\"\nchannel = \"b\"\n"),
        ] {
            let text = error(name, content);
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.contains(", line "), "{text}");
        }
    }
}
