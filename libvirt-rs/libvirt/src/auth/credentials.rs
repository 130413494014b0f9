//! User name and password.

use std::{fmt, path::Path};

use zeroize::Zeroizing;

use super::{Error, file::AuthFile, limits::MAX_FILE};
use crate::{Environment, files, uri::Uri};

/// Who this client is, and how it proves that. The password is wiped when it is dropped, and no `Debug` shows it.
///
/// The default is nobody, which does where the connection itself says who this is (EXTERNAL).
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// Who authenticates: SASL's authentication identity.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Zeroizing<String>>,
    /// Whom that one wants to act as, if it is another: SASL's authorization identity.
    pub authzid: Option<String>,
}

impl Credentials {
    /// A user with a password.
    #[must_use]
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            username: Some(username.into()),
            password: Some(Zeroizing::new(password.into())),
            authzid: None,
        }
    }

    /// A user who wants to act as another.
    #[must_use]
    pub fn acting_as(mut self, authzid: impl Into<String>) -> Self {
        self.authzid = Some(authzid.into());
        self
    }

    /// Those for a connection in libvirt's auth.conf, if there are any. Without a user there, the URI's counts.
    ///
    /// The file is the first of `LIBVIRT_AUTH_FILE`, the URI's `authfile=`, `~/.config/libvirt/auth.conf` and
    /// `/etc/libvirt/auth.conf`. The first two must be there if they are named.
    ///
    /// ```text
    /// [credentials-bob]
    /// authname=bob
    /// password=123456
    ///
    /// [auth-libvirt-host.example]
    /// credentials=bob
    /// ```
    ///
    /// # Errors
    /// The file can't be read, or something in it is wrong.
    pub fn for_uri(uri: &Uri, environment: &Environment) -> Result<Self, Error> {
        let found = match Self::file(uri, environment)? {
            Some(file) => file.credentials("libvirt", uri.host_or_localhost())?,
            None => Self::default(),
        };
        Ok(Self {
            username: found.username.or_else(|| uri.user().map(str::to_owned)),
            ..found
        })
    }

    fn file(uri: &Uri, environment: &Environment) -> Result<Option<AuthFile>, Error> {
        let named = environment
            .auth_file
            .clone()
            .or(uri.settings().authfile.clone());
        if let Some(path) = named {
            let missing = || Error::File {
                path: path.clone(),
                line: None,
                why: "there is no such file, and LIBVIRT_AUTH_FILE or authfile= names it"
                    .to_owned(),
            };
            return Self::read(&path)?.ok_or_else(missing).map(Some);
        }
        if let Some(path) = environment.user_file("auth.conf")
            && let Some(file) = Self::read(&path)?
        {
            return Ok(Some(file));
        }
        match Self::read(&environment.system_file("auth.conf")) {
            // It may be root's secret, and then is none of this user's.
            Err(Error::File { line: None, .. }) if !environment.is_root() => Ok(None),
            result => result,
        }
    }

    fn read(path: &Path) -> Result<Option<AuthFile>, Error> {
        let text = files::read_text(path, MAX_FILE).map_err(|why| Error::File {
            path: path.to_owned(),
            line: None,
            why,
        })?;
        text.map(|text| AuthFile::parse(&text, path)).transpose()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("authzid", &self.authzid)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn environment(dir: &Path) -> Environment {
        let mut environment = Environment::of_process();
        environment.uid = 1000;
        environment.config_dir = dir.join("etc");
        environment.user_config_dir = Some(dir.join("home"));
        environment.auth_file = None;
        environment
    }

    fn write(dir: &Path, name: &str, user: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = format!(
            "[credentials-a]\nauthname={user}\npassword=p\n[auth-libvirt-h]\ncredentials=a\n"
        );
        fs::write(path, text).unwrap();
    }

    fn found(uri: &str, environment: &Environment) -> Result<Option<String>, Error> {
        let uri = Uri::parse(uri).unwrap();
        Credentials::for_uri(&uri, environment).map(|found| found.username)
    }

    #[test]
    fn the_file_is_looked_for_as_libvirt_does() {
        let dir = tempfile::tempdir().unwrap();
        let mut environment = environment(dir.path());
        let at_h = "qemu://h/system";
        let named = format!("{at_h}?authfile={}", dir.path().join("named").display());
        assert_eq!(found(at_h, &environment), Ok(None));
        assert!(
            found(&named, &environment)
                .unwrap_err()
                .to_string()
                .contains("no such file")
        );
        write(dir.path(), "etc/libvirt/auth.conf", "of-system");
        assert_eq!(
            found(at_h, &environment).unwrap().as_deref(),
            Some("of-system")
        );
        write(dir.path(), "home/libvirt/auth.conf", "of-user");
        assert_eq!(
            found(at_h, &environment).unwrap().as_deref(),
            Some("of-user")
        );
        write(dir.path(), "named", "of-uri");
        assert_eq!(
            found(&named, &environment).unwrap().as_deref(),
            Some("of-uri")
        );
        write(dir.path(), "variable", "of-variable");
        environment.auth_file = Some(dir.path().join("variable"));
        assert_eq!(
            found(&named, &environment).unwrap().as_deref(),
            Some("of-variable")
        );
    }

    #[test]
    fn the_uris_user_counts_where_the_file_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let environment = environment(dir.path());
        write(dir.path(), "etc/libvirt/auth.conf", "of-file");
        assert_eq!(
            found("qemu://bob@h/system", &environment)
                .unwrap()
                .as_deref(),
            Some("of-file")
        );
        assert_eq!(
            found("qemu://bob@g/system", &environment)
                .unwrap()
                .as_deref(),
            Some("bob")
        );
    }

    #[test]
    fn a_system_file_that_only_root_may_use_is_nothing_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut environment = environment(dir.path());
        fs::create_dir_all(dir.path().join("etc/libvirt/auth.conf")).unwrap();
        assert_eq!(found("qemu://h/system", &environment), Ok(None));
        environment.uid = 0;
        assert!(found("qemu://h/system", &environment).is_err());
    }

    #[test]
    fn no_debug_shows_the_password() {
        let credentials = Credentials::new("bob", "secret").acting_as("alice");
        let text = format!("{credentials:?}");
        assert!(
            text.contains("bob") && text.contains("alice") && !text.contains("secret"),
            "{text}"
        );
    }
}
