//! auth.conf: libvirt's file with user names and passwords.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Credentials, Error};

/// Sections `[name]` with lines `key=value`. All values are kept as passwords are.
pub(super) struct AuthFile {
    path: PathBuf,
    sections: Vec<Section>,
}

struct Section {
    name: String,
    line: usize,
    values: Vec<(String, Zeroizing<String>)>,
}

impl Section {
    fn value(&self, key: &str) -> Option<&str> {
        let found = self.values.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    }
}

impl AuthFile {
    /// Errors name lines and never what stands in them, for that may be a password.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let mut file = Self {
            path: path.to_owned(),
            sections: Vec::new(),
        };
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(rest) = line.strip_prefix('[') {
                let name = rest.strip_suffix(']').ok_or_else(|| {
                    file.wrong(number, "the section's name lacks its closing `]`")
                })?;
                file.sections.push(Section {
                    name: name.to_owned(),
                    line: number,
                    values: Vec::new(),
                });
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(file.wrong(
                    number,
                    "a line is `[section]`, `key=value`, or begins with `#`",
                ));
            };
            let Some(section) = file.sections.last_mut() else {
                return Err(file.wrong(number, "it stands before the first [section]"));
            };
            let value = Zeroizing::new(value.trim().to_owned());
            section.values.push((key.trim().to_owned(), value));
        }
        Ok(file)
    }

    fn wrong(&self, line: usize, why: impl Into<String>) -> Error {
        Error::File {
            path: self.path.clone(),
            line: Some(line),
            why: why.into(),
        }
    }

    fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Those that a host's section names, or the default's where the host has none. Nobody, where there is neither.
    pub(super) fn credentials(&self, service: &str, host: &str) -> Result<Credentials, Error> {
        let of_host = self.section(&format!("auth-{service}-{host}"));
        let Some(section) = of_host.or_else(|| self.section(&format!("auth-{service}-default")))
        else {
            return Ok(Credentials::default());
        };
        let name = section.value("credentials").ok_or_else(|| {
            let why = format!("[{}] lacks the line credentials=name", section.name);
            self.wrong(section.line, why)
        })?;
        let named = self
            .section(&format!("credentials-{name}"))
            .ok_or_else(|| {
                let why = format!(
                    "[{}] names credentials for which there is no section [credentials-…]",
                    section.name
                );
                self.wrong(section.line, why)
            })?;
        let text = |key: &str| named.value(key).map(str::to_owned);
        // libvirt's names: `authname` authenticates, and `username` is whom that one acts as. Where `username` stands
        // alone, as it does in files for other hypervisors, it is who authenticates.
        let (username, authzid) = match (text("authname"), text("username")) {
            (Some(authname), username) => (Some(authname), username),
            (None, username) => (username, None),
        };
        Ok(Credentials {
            username,
            authzid,
            password: named
                .value("password")
                .map(|password| Zeroizing::new(password.to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AuthFile, Error> {
        AuthFile::parse(text, Path::new("auth.conf"))
    }

    #[test]
    fn a_hosts_section_comes_before_the_default() {
        let text = "# comment\n; comment\n\n\
            [credentials-a]\r\n authname = alice \r\npassword= p=w # x \n\
            [credentials-b]\nusername=bob\npassword=\n\
            [credentials-c]\nauthname=carol\nusername=admin\n\
            [auth-libvirt-a.example]\ncredentials=a\n\
            [auth-libvirt-c.example]\ncredentials=c\n\
            [auth-esx-d.example]\ncredentials=c\n\
            [auth-libvirt-default]\ncredentials=b\n";
        let file = parse(text).unwrap();
        let at = |host: &str| file.credentials("libvirt", host).unwrap();
        assert_eq!(at("a.example"), Credentials::new("alice", "p=w # x"));
        assert_eq!(at("d.example"), Credentials::new("bob", ""));
        let carol = at("c.example");
        assert_eq!(carol.username.as_deref(), Some("carol"));
        assert_eq!(carol.authzid.as_deref(), Some("admin"));
        assert_eq!(carol.password, None);
        let none = parse("").unwrap().credentials("libvirt", "h").unwrap();
        assert_eq!(none, Credentials::default());
    }

    #[test]
    fn a_mistake_is_reported_with_its_line_and_without_what_stands_there() {
        for (text, line, why) in [
            ("\nsecret=1", 2, "before the first"),
            ("[secret\n", 1, "closing `]`"),
            ("[credentials-a]\nsecret", 2, "key=value"),
            (
                "[auth-libvirt-default]\n",
                1,
                "lacks the line credentials=name",
            ),
            (
                "\n[auth-libvirt-default]\ncredentials=secret",
                2,
                "no section [credentials-…]",
            ),
        ] {
            let error = parse(text)
                .and_then(|file| file.credentials("libvirt", "h"))
                .unwrap_err();
            let shown = error.to_string();
            assert!(
                shown.contains(why) && !shown.contains("secret"),
                "{text:?}: {shown}"
            );
            assert!(
                matches!(error, Error::File { line: Some(at), .. } if at == line),
                "{text:?}: {shown}"
            );
        }
    }
}
