//! A configuration file: TOML or YAML, by its ending.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use crate::{
    access::{reason, regular_file},
    limits::MAX_FILE,
    words,
};

/// How a configuration file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.toml`
    Toml,
    /// `.yaml`, `.yml`
    Yaml,
}

impl Format {
    /// By the ending of a path.
    ///
    /// # Errors
    /// The ending is another, or there is none.
    pub fn of(path: &Path) -> Result<Self, FileError> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("toml") => Ok(Self::Toml),
            Some("yaml" | "yml") => Ok(Self::Yaml),
            _ => Err(FileError::Ending(path.to_owned())),
        }
    }
}

/// Why a configuration file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It can't be read.
    #[error("can't read the configuration file {path}: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What is the matter with it.
        why: String,
    },
    /// Its ending tells no format.
    #[error("the ending of {0} does not tell its format; name it .toml, .yaml or .yml")]
    Ending(PathBuf),
    /// Something in it is wrong.
    #[error("{path}{}: {message}", .line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where in it, if that is known.
        line: Option<usize>,
        /// What is wrong.
        message: String,
    },
}

/// Reads a file.
///
/// # Errors
/// It can't be read, is too long, has another ending, or something in it is wrong.
pub fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T, FileError> {
    let failed = |why: String| FileError::Read {
        path: path.to_owned(),
        why,
    };
    regular_file(path).map_err(failed)?;
    let format = Format::of(path)?;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(reason(&error)))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(format!("it is longer than {MAX_FILE} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8 text".to_owned()))?;
    parse(&text, format, path)
}

/// Reads a text as if it were the file `path`, which errors name.
///
/// # Errors
/// Something in it is wrong.
pub fn parse<T: DeserializeOwned + Default>(
    text: &str,
    format: Format,
    path: &Path,
) -> Result<T, FileError> {
    let content = match format {
        Format::Toml => toml::from_str(text).map_err(|error| words::of_toml(&error, text)),
        // A file of comments alone is no mapping, but null.
        Format::Yaml => serde_norway::from_str::<Option<T>>(text)
            .map(Option::unwrap_or_default)
            .map_err(|error| words::of_yaml(&error)),
    };
    content.map_err(|(line, message)| FileError::Content {
        path: path.to_owned(),
        line,
        message,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Form {
        log: Option<String>,
        listen: Vec<String>,
        entry: Vec<Entry>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        name: String,
    }

    fn error(name: &str, text: &str) -> String {
        let path = Path::new(name);
        parse::<Form>(text, Format::of(path).unwrap(), path)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn both_formats_say_the_same() {
        let path = Path::new("a");
        let toml = "log = \"info\"\nlisten = [\"x\"]\n[[entry]]\nname = \"web\"\n";
        let yaml = "log: info\nlisten:\n- x\nentry:\n- name: web\n";
        let form: Form = parse(toml, Format::Toml, path).unwrap();
        assert_eq!(form, parse(yaml, Format::Yaml, path).unwrap());
        assert_eq!(form.entry[0].name, "web");
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.toml", "a.yaml", "a.yml"] {
            for text in ["", "# nothing yet\n"] {
                let path = dir.path().join(name);
                fs::write(&path, text).unwrap();
                assert_eq!(read::<Form>(&path).unwrap(), Form::default());
            }
        }
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        for (name, text, expected) in [
            (
                "a.toml",
                "\nlisten = []\nlgo = \"info\"\n",
                "a.toml, line 3: unknown key `lgo`: did you mean `log`?",
            ),
            (
                "a.yaml",
                "\nlisten: []\nlgo: info\n",
                "a.yaml, line 3: unknown key `lgo`: did you mean `log`?",
            ),
            (
                "a.yaml",
                "\ncolour: red\n",
                "a.yaml, line 2: unknown key `colour`: the keys here are log, listen, entry",
            ),
            (
                "a.toml",
                "[[entry]]\n",
                "a.toml, line 1: the key `name` is missing here",
            ),
            (
                "a.yaml",
                "log: info\nlog: debug\n",
                "a.yaml, line 1: the key `log` is there twice",
            ),
        ] {
            assert_eq!(error(name, text), expected);
        }
    }

    #[test]
    fn what_is_no_configuration_is_one_sentence() {
        for (name, text) in [
            ("a.toml", "log = \n"),
            ("a.toml", "[log]\nx = 1\n"),
            ("a.toml", "[[entry\n"),
            ("a.toml", "log = \"a\"\nlog = \"b\"\n"),
            ("a.toml", "listen = [\n"),
            ("a.yaml", "- a\n- b\n"),
            ("a.yaml", "a: [b\nc: d"),
            ("a.yaml", "listen: [\n"),
        ] {
            let text = error(name, text);
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.contains(", line "), "{text}");
        }
    }

    #[test]
    fn a_file_is_refused_if_it_is_missing_none_too_long_or_of_another_format() {
        let dir = tempfile::tempdir().unwrap();
        let assert_says = |path: &Path, words: &[&str]| {
            let text = read::<Form>(path).unwrap_err().to_string();
            for word in words {
                assert!(text.contains(word), "\"{text}\" does not say \"{word}\"");
            }
            assert_eq!(text.lines().count(), 1, "{text}");
        };
        assert_says(
            &dir.path().join("no.toml"),
            &["no.toml", "there is no such file"],
        );
        assert_says(dir.path(), &["a directory"]);
        let path = dir.path().join("dir.toml");
        fs::create_dir(&path).unwrap();
        assert_says(&path, &["a directory"]);
        assert_says(Path::new("/dev/null"), &["a device"]);
        let path = dir.path().join("vbridge.conf");
        fs::write(&path, "").unwrap();
        assert_says(&path, &["vbridge.conf", ".toml, .yaml or .yml"]);
        let path = dir.path().join("a.toml");
        fs::write(&path, "#".repeat(1024 * 1024 + 1)).unwrap();
        assert_says(&path, &["longer than 1048576"]);
        fs::write(&path, "#".repeat(1024 * 1024)).unwrap();
        assert!(read::<Form>(&path).is_ok());
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_says(&path, &["not UTF-8"]);
    }
}
