//! What stands around URIs: the default of a connection that names none, and aliases. Both are in libvirt.conf, and for a
//! daemon's administration in libvirt-admin.conf.

use std::path::{Path, PathBuf};

use super::{Error, Uri, limits::MAX_CONF};
use crate::{Environment, files};

impl Uri {
    /// The URI of a connection that names none: `LIBVIRT_DEFAULT_URI`, else `uri_default` in libvirt.conf, else the
    /// empty one.
    ///
    /// libvirt.conf is `/etc/libvirt/libvirt.conf` for root, and `~/.config/libvirt/libvirt.conf` for others.
    ///
    /// # Errors
    /// That URI or libvirt.conf is wrong.
    pub fn default_from_environment() -> Result<Self, Error> {
        Self::resolve("", &Environment::of_process())
    }

    /// Takes a URI apart that may also be an alias in libvirt.conf, or empty: then it is the default.
    ///
    /// # Errors
    /// The URI or libvirt.conf is wrong.
    pub fn resolve(text: &str, environment: &Environment) -> Result<Self, Error> {
        let default = environment.default_uri.as_deref();
        Self::resolve_in("libvirt.conf", default, text, environment)
    }

    /// As [`resolve`](Self::resolve), for the administration of a daemon; there the default is in
    /// `LIBVIRT_ADMIN_DEFAULT_URI` and libvirt-admin.conf. Without them it is libvirtd's.
    pub(crate) fn resolve_admin(text: &str, environment: &Environment) -> Result<Self, Error> {
        let default = environment.admin_default_uri.as_deref();
        let uri = Self::resolve_in("libvirt-admin.conf", default, text, environment)?;
        match (uri.is_empty(), environment.is_root()) {
            (false, _) => Ok(uri),
            (true, true) => Self::parse("libvirtd:///system"),
            (true, false) => Self::parse("libvirtd:///session"),
        }
    }

    fn resolve_in(
        file: &str,
        default: Option<&str>,
        text: &str,
        environment: &Environment,
    ) -> Result<Self, Error> {
        let named = if text.is_empty() {
            default.unwrap_or("")
        } else {
            text
        };
        // A whole URI needs no file.
        if named.contains(':') {
            return Self::parse(named);
        }
        let Some(configuration) = Configuration::of(file, environment)? else {
            return Self::parse(named);
        };
        let named = match (named, &configuration.default) {
            ("", Some(default)) => default,
            _ => named,
        };
        Self::parse(configuration.alias(named).unwrap_or(named))
    }
}

/// What libvirt.conf says about URIs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Configuration {
    default: Option<String>,
    /// Names and what they stand for.
    aliases: Vec<(String, String)>,
}

impl Configuration {
    fn of(file: &str, environment: &Environment) -> Result<Option<Self>, Error> {
        let path = if environment.is_root() {
            Some(environment.system_file(file))
        } else {
            environment.user_file(file)
        };
        let Some(path) = path else { return Ok(None) };
        let read = files::read_text(&path, MAX_CONF).map_err(|why| Error::Configuration {
            path: path.clone(),
            line: None,
            why,
        })?;
        read.map(|text| Self::parse(&text, &path)).transpose()
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let mut parser = Parser::new(text, path);
        let mut configuration = Self::default();
        while let Some(key) = parser.key()? {
            let line = parser.line;
            let value = parser.value()?;
            match (key, value) {
                ("uri_default", Value::Text(uri)) => configuration.default = Some(uri.to_owned()),
                ("uri_default", _) => {
                    return Err(parser.at(line, "uri_default is a URI in quotation marks"));
                }
                ("uri_aliases", Value::List(entries)) => {
                    configuration.aliases = entries
                        .into_iter()
                        .map(|entry| alias(&entry).ok_or_else(|| parser.at(line, ALIASES)))
                        .collect::<Result<_, _>>()?;
                }
                ("uri_aliases", _) => return Err(parser.at(line, ALIASES)),
                // Other keys are libvirt's business.
                _ => {}
            }
            parser.end_of_line()?;
        }
        Ok(configuration)
    }

    fn alias(&self, name: &str) -> Option<&str> {
        let found = self.aliases.iter().find(|(alias, _)| alias == name);
        found.map(|(_, uri)| uri.as_str())
    }
}

const ALIASES: &str = "uri_aliases is a list like [ \"name=qemu+ssh://host/system\" ], where a name is of letters, \
                       digits, `_` and `-`";

fn alias(entry: &Value<'_>) -> Option<(String, String)> {
    let Value::Text(text) = entry else {
        return None;
    };
    let (name, uri) = text.split_once('=')?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let valid = !name.is_empty() && name.chars().all(allowed);
    valid.then(|| (name.to_owned(), uri.to_owned()))
}

/// What stands behind a `=`.
enum Value<'a> {
    Text(&'a str),
    Number,
    List(Vec<Self>),
}

/// Reads `key = "text" | number | [ list ]`, with comments behind `#`.
struct Parser<'a> {
    rest: &'a str,
    line: usize,
    path: &'a Path,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, path: &'a Path) -> Self {
        Self {
            rest: text,
            line: 1,
            path,
        }
    }

    fn at(&self, line: usize, why: impl Into<String>) -> Error {
        Error::Configuration {
            path: PathBuf::from(self.path),
            line: Some(line),
            why: why.into(),
        }
    }

    fn wrong(&self, why: impl Into<String>) -> Error {
        self.at(self.line, why)
    }

    /// Takes so many bytes.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.bytes().filter(|&byte| byte == b'\n').count();
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        self.take(self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len()))
    }

    fn skip(&mut self, text: &str) -> bool {
        let found = self.rest.starts_with(text);
        if found {
            self.take(text.len());
        }
        found
    }

    fn spaces(&mut self) {
        self.take_while(|c| matches!(c, ' ' | '\t' | '\r'));
    }

    /// Spaces, ends of lines and comments.
    fn blank(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
            if !self.rest.starts_with('#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    /// The next key, behind whose `=` the parser then is.
    fn key(&mut self) -> Result<Option<&'a str>, Error> {
        self.blank();
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        self.spaces();
        if key.is_empty() || !self.skip("=") {
            return Err(self.wrong("a line is `key = value`, or begins with `#`"));
        }
        self.spaces();
        Ok(Some(key))
    }

    fn value(&mut self) -> Result<Value<'a>, Error> {
        match self.rest.chars().next() {
            Some('[') => self.list(),
            Some('"' | '\'') => self.scalar(),
            Some(c) if c == '-' || c.is_ascii_digit() => self.scalar(),
            _ => {
                Err(self
                    .wrong("a value is text in quotation marks, a number, or a list in brackets"))
            }
        }
    }

    fn scalar(&mut self) -> Result<Value<'a>, Error> {
        for quote in ["\"\"\"", "\"", "'"] {
            if self.skip(quote) {
                return self.text(quote).map(Value::Text);
            }
        }
        self.skip("-");
        match self.take_while(|c| c.is_ascii_digit()) {
            "" => Err(self.wrong("a value in a list is text in quotation marks, or a number")),
            _ => Ok(Value::Number),
        }
    }

    /// The text up to its closing quotation mark. There is no way to write that mark inside.
    fn text(&mut self, quote: &str) -> Result<&'a str, Error> {
        let end = self.rest.find(quote);
        let end = end.filter(|&end| quote.len() == 3 || !self.rest[..end].contains('\n'));
        let Some(end) = end else {
            return Err(self.wrong(format!("the text lacks its closing {quote}")));
        };
        let text = self.take(end);
        self.take(quote.len());
        Ok(text)
    }

    fn list(&mut self) -> Result<Value<'a>, Error> {
        let opened = self.line;
        self.skip("[");
        let mut entries = Vec::new();
        loop {
            self.blank();
            if self.skip("]") {
                return Ok(Value::List(entries));
            }
            if self.rest.is_empty() {
                return Err(self.at(opened, "the list lacks its closing `]`"));
            }
            entries.push(self.scalar()?);
            self.blank();
            if !self.skip(",") && !self.rest.is_empty() && !self.rest.starts_with(']') {
                return Err(self.wrong("a `,` or `]` is missing behind an entry of the list"));
            }
        }
    }

    fn end_of_line(&mut self) -> Result<(), Error> {
        self.spaces();
        match self.rest.chars().next() {
            None | Some('\n' | '#') => Ok(()),
            Some(_) => Err(self.wrong("something follows the value in its line")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(text: &str) -> Result<Configuration, Error> {
        Configuration::parse(text, Path::new("libvirt.conf"))
    }

    #[test]
    fn default_and_aliases_are_found_among_other_keys() {
        let text = "# a comment\n\
            other = -12   # another\n\
            remote_mode = 'direct'\r\n\
            uri_aliases = [\n  \"hail=qemu+ssh://root@hail/system\", # why\n\n  'sleet=lxc:///?a=b',\n]\n\
            long = \"\"\"one\ntwo\"\"\"\n\
            uri_default=\"hail\"";
        let read = parse(text).unwrap();
        assert_eq!(read.default.as_deref(), Some("hail"));
        assert_eq!(read.alias("hail"), Some("qemu+ssh://root@hail/system"));
        assert_eq!(read.alias("sleet"), Some("lxc:///?a=b"));
        assert_eq!(read.alias("rain"), None);
        assert_eq!(parse("").unwrap(), Configuration::default());
        assert_eq!(parse("uri_aliases = []").unwrap(), Configuration::default());
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        for (text, line, why) in [
            ("\nuri_default = 1", 2, "in quotation marks"),
            ("a = 1\nuri_default", 2, "key = value"),
            ("uri_default = \"a\nb\"", 1, "closing \""),
            ("uri_aliases = [ 'a=b'\n\n", 1, "closing `]`"),
            ("uri_aliases = [ 'a=b' 'c=d' ]", 1, "`,` or `]`"),
            ("uri_aliases = [ 'a b=c' ]", 1, "list like"),
            ("uri_aliases = [ 'ab' ]", 1, "list like"),
            ("uri_aliases = [ 1 ]", 1, "list like"),
            ("uri_aliases = [ [ ] ]", 1, "in a list"),
            ("uri_aliases = 'a=b'", 1, "list like"),
            ("a = b", 1, "a value is"),
            ("a = ", 1, "a value is"),
            ("a = 1 b = 2", 1, "follows the value"),
            ("a = \"\"\"x", 1, "closing \"\"\""),
            ("= 1", 1, "key = value"),
        ] {
            match parse(text) {
                Err(Error::Configuration {
                    line: Some(at),
                    why: what,
                    ..
                }) => {
                    assert!(
                        at == line && what.contains(why),
                        "{text:?}: line {at}: {what}"
                    );
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    fn environment(dir: &Path, uid: u32) -> Environment {
        let mut environment = Environment::of_process();
        environment.uid = uid;
        environment.config_dir = dir.join("etc");
        environment.user_config_dir = Some(dir.join("home"));
        environment.default_uri = None;
        for (place, uri) in [("etc", "xen:///system"), ("home", "qemu:///session")] {
            let libvirt = dir.join(place).join("libvirt");
            fs::create_dir_all(&libvirt).unwrap();
            let text =
                format!("uri_default = '{uri}'\nuri_aliases = ['far=qemu://{place}/system']");
            fs::write(libvirt.join("libvirt.conf"), text).unwrap();
        }
        environment
    }

    #[test]
    fn the_default_is_looked_for_in_the_variable_then_in_the_users_file_or_the_systems() {
        let dir = tempfile::tempdir().unwrap();
        let resolve = |text: &str, environment: &Environment| {
            Uri::resolve(text, environment).unwrap().to_string()
        };
        let root = environment(dir.path(), 0);
        assert_eq!(resolve("", &root), "xen:///system");
        assert_eq!(resolve("far", &root), "qemu://etc/system");
        let mut user = environment(dir.path(), 1000);
        assert_eq!(resolve("", &user), "qemu:///session");
        assert_eq!(resolve("far", &user), "qemu://home/system");
        assert_eq!(resolve("lxc:///", &user), "lxc:///");
        user.default_uri = Some("test:///default".to_owned());
        assert_eq!(resolve("", &user), "test:///default");
        user.default_uri = Some("far".to_owned());
        assert_eq!(resolve("", &user), "qemu://home/system");
        assert!(matches!(
            Uri::resolve("near", &user),
            Err(Error::NoScheme(_))
        ));
        user.default_uri = None;
        user.user_config_dir = None;
        assert!(Uri::resolve("", &user).unwrap().is_empty());
    }

    #[test]
    fn a_daemons_administration_has_a_default_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let resolve = |text: &str, environment: &Environment| {
            Uri::resolve_admin(text, environment).unwrap().to_string()
        };
        let mut root = environment(dir.path(), 0);
        root.default_uri = Some("test:///default".to_owned());
        root.admin_default_uri = None;
        assert_eq!(resolve("", &root), "libvirtd:///system");
        let mut user = environment(dir.path(), 1000);
        user.admin_default_uri = None;
        assert_eq!(resolve("", &user), "libvirtd:///session");
        let text = "uri_default = 'log'\nuri_aliases = ['log=virtlogd:///system']";
        fs::write(dir.path().join("etc/libvirt/libvirt-admin.conf"), text).unwrap();
        assert_eq!(resolve("", &root), "virtlogd:///system");
        root.admin_default_uri = Some("virtqemud:///system".to_owned());
        assert_eq!(resolve("", &root), "virtqemud:///system");
        assert_eq!(resolve("log", &root), "virtlogd:///system");
    }

    #[test]
    fn a_default_that_cannot_be_read_is_an_error_and_not_no_default() {
        let dir = tempfile::tempdir().unwrap();
        let root = environment(dir.path(), 0);
        let path = dir.path().join("etc/libvirt/libvirt.conf");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let text = Uri::resolve("", &root).unwrap_err().to_string();
        assert!(
            text.contains("libvirt.conf: it is not a regular file"),
            "{text}"
        );
    }
}
