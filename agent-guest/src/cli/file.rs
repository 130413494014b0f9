//! The configuration file: TOML or YAML, by its ending.
//!
//! Every value is checked while it is read, so that an error names its line.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use agent_guest::limits::MAX_CONFIG_FILE;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use super::{KEYS, Layer, unknown_key};

/// Why a configuration file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It can't be read.
    #[error("can't read the configuration file {path}: {why}")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Something in it is wrong.
    #[error("{path}{}: {message}", .line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Content {
        /// Where.
        path: PathBuf,
        /// On which line.
        line: Option<usize>,
        /// What.
        message: String,
    },
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Toml,
    Yaml,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Layer, FileError> {
    let failed = |why: String| FileError::Read {
        path: path.to_owned(),
        why,
    };
    let format = match path.extension().and_then(|ending| ending.to_str()) {
        Some("toml") => Format::Toml,
        Some("yaml" | "yml") => Format::Yaml,
        _ => {
            return Err(failed(
                "its name must end with .toml, .yaml or .yml".to_owned(),
            ));
        }
    };
    let metadata = fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("it is no regular file".to_owned()));
    }
    let limit = u64::try_from(MAX_CONFIG_FILE).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|error| failed(error.to_string()))?;
    if bytes.len() > MAX_CONFIG_FILE {
        return Err(failed(format!("it is longer than {MAX_CONFIG_FILE} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8 text".to_owned()))?;
    parse(&text, format).map_err(|(line, message)| FileError::Content {
        path: path.to_owned(),
        line,
        message,
    })
}

/// Reads a file that need not exist.
pub(super) fn read_if_there(path: &Path) -> Result<Layer, FileError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Layer::default()),
        _ => read(path),
    }
}

/// Reads a text; an error has its line, if that is known, and a message of one line.
fn parse(text: &str, format: Format) -> Result<Layer, (Option<usize>, String)> {
    match format {
        Format::Toml => toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| line_at(text, span.start));
            (line, one_line(error.message()))
        }),
        // A file of comments alone is no mapping, but null.
        Format::Yaml => serde_norway::from_str::<Option<Layer>>(text)
            .map(Option::unwrap_or_default)
            .map_err(|error| {
                let location = error.location();
                let message = error.to_string();
                // It repeats the place, which is said already.
                let message = match &location {
                    Some(at) => message.replace(
                        &format!(" at line {} column {}", at.line(), at.column()),
                        "",
                    ),
                    None => message,
                };
                // So it does with the key of a wrong value.
                let message = match message.split_once(": ") {
                    Some((key, rest)) if rest.starts_with(&format!("{key}: ")) => rest,
                    _ => &message,
                };
                (location.map(|at| at.line()), one_line(message))
            }),
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
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
                return Err(A::Error::custom(format!("`{key}` is there twice")));
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
        deserializer.deserialize_str(Text(|key: &str| {
            KEYS.into_iter()
                .find(|known| *known == key)
                .map(Self)
                .ok_or_else(|| unknown_key(key))
        }))
    }
}

/// Checks a text while it is visited: only an error from there has the text's own line in YAML.
struct Text<F>(F);

impl<T, F: FnOnce(&str) -> Result<T, String>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        self.0(text).map_err(E::custom)
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
        if self.key == "wait" {
            self.layer.wait = Some(bool::deserialize(deserializer)?);
            return Ok(());
        }
        let Self { key, layer } = self;
        deserializer.deserialize_str(Text(|value: &str| {
            layer
                .set(key, value)
                .map_err(|message| format!("{key}: {message}"))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        (dir, path)
    }

    fn error(name: &str, content: &str) -> String {
        let (dir, path) = file(name, content);
        let error = read(&path).unwrap_err().to_string();
        error.replace(dir.path().to_str().unwrap(), "DIR")
    }

    #[test]
    fn both_formats_say_the_same() {
        let toml = "# all\nchannel = \"c\"\nwait = true\nlisten = \"unix:/run/x\"\nkey_file = \"/k\"\nlog = \"debug\"\n";
        let yaml = "# all\nchannel: c\nwait: true\nlisten: unix:/run/x\nkey_file: /k\nlog: debug\n";
        let (_toml_dir, toml) = file("agent.toml", toml);
        let (_yaml_dir, yaml) = file("agent.yml", yaml);
        let layer = read(&toml).unwrap();
        assert_eq!(layer, read(&yaml).unwrap());
        assert_eq!(layer.wait, Some(true));
        assert_eq!(layer.listen, Some("/run/x".into()));
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        for name in ["agent.toml", "agent.yaml"] {
            for content in ["", "# nothing yet\n"] {
                let (_dir, path) = file(name, content);
                assert_eq!(read(&path).unwrap(), Layer::default());
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

    #[test]
    fn a_file_that_is_none_is_refused() {
        assert!(error("agent.conf", "").contains("must end with .toml"));
        let (_dir, path) = file("a.toml", b"\xff\xfe");
        assert!(read(&path).unwrap_err().to_string().contains("not UTF-8"));
        let (_dir, path) = file("a.toml", vec![b'#'; MAX_CONFIG_FILE + 1]);
        assert!(read(&path).unwrap_err().to_string().contains("longer than"));
        assert!(
            read(Path::new("/nonexistent.toml"))
                .unwrap_err()
                .to_string()
                .contains("No such file")
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dir.toml");
        fs::create_dir(&path).unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .contains("no regular file")
        );
    }
}
