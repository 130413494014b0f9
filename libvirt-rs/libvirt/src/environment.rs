//! What the process around the library says: who runs it, where files and sockets are, what its variables hold.

use std::{
    env,
    path::{Path, PathBuf},
};

/// What the library takes from the process around it, gathered in one place so that it can be given instead.
///
/// Everything that connects looks here and nowhere else: a test, or a program that acts for several users, passes its
/// own.
///
/// ```
/// use std::path::PathBuf;
/// let mut environment = libvirt::Environment::of_process();
/// environment.run_dir = PathBuf::from("/srv/other-root/run");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Environment {
    /// The effective user. Root has no session daemon and no files of its own.
    pub uid: u32,
    /// Where the system's daemons have their sockets, in `libvirt/` below it. By default `/var/run`, which also a
    /// system that has `/run` keeps as a link to it.
    pub run_dir: PathBuf,
    /// Where the system's configuration is, in `libvirt/` and `pki/` below it. By default `/etc`.
    pub config_dir: PathBuf,
    /// The user's directory: `HOME`.
    pub home: Option<PathBuf>,
    /// Where the user's daemons have their sockets: `XDG_RUNTIME_DIR`, else the user's cache directory.
    pub user_run_dir: Option<PathBuf>,
    /// Where the user's configuration is: `XDG_CONFIG_HOME`, else `~/.config`.
    pub user_config_dir: Option<PathBuf>,
    /// The URI of a connection that names none: `LIBVIRT_DEFAULT_URI`.
    pub default_uri: Option<String>,
    /// The URI of a daemon's administration that names none: `LIBVIRT_ADMIN_DEFAULT_URI`.
    pub admin_default_uri: Option<String>,
    /// The file with user names and passwords: `LIBVIRT_AUTH_FILE`.
    pub auth_file: Option<PathBuf>,
}

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::of_variables(rustix::process::geteuid().as_raw(), |name| {
            env::var_os(name).filter(|value| !value.is_empty())
        })
    }

    fn of_variables(uid: u32, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let path = |name| variable(name).map(PathBuf::from);
        let text = |name| variable(name).and_then(|text| text.into_string().ok());
        // The XDG specification: a path that is not absolute is to be ignored.
        let absolute = |name| path(name).filter(|path| path.is_absolute());
        let home = path("HOME");
        let below_home = |name| home.as_ref().map(|home| home.join(name));
        Self {
            uid,
            run_dir: PathBuf::from("/var/run"),
            config_dir: PathBuf::from("/etc"),
            user_run_dir: absolute("XDG_RUNTIME_DIR")
                .or_else(|| absolute("XDG_CACHE_HOME"))
                .or_else(|| below_home(".cache")),
            user_config_dir: absolute("XDG_CONFIG_HOME").or_else(|| below_home(".config")),
            home,
            default_uri: text("LIBVIRT_DEFAULT_URI"),
            admin_default_uri: text("LIBVIRT_ADMIN_DEFAULT_URI"),
            auth_file: path("LIBVIRT_AUTH_FILE"),
        }
    }

    /// Whether the user is root.
    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// A file of libvirt's in the system's configuration.
    pub(crate) fn system_file(&self, name: &str) -> PathBuf {
        self.config_dir.join("libvirt").join(name)
    }

    /// A file of libvirt's in the user's configuration.
    pub(crate) fn user_file(&self, name: &str) -> Option<PathBuf> {
        let below = |dir: &PathBuf| Path::new(dir).join("libvirt").join(name);
        self.user_config_dir.as_ref().map(below)
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::of_process()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Environment {
        Environment::of_variables(1000, |name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_users_directories_follow_xdg() {
        let named = of(&[
            ("HOME", "/home/u"),
            ("XDG_RUNTIME_DIR", "/run/user/1000"),
            ("XDG_CONFIG_HOME", "/conf"),
        ]);
        assert_eq!(
            named.user_run_dir.as_deref(),
            Some(Path::new("/run/user/1000"))
        );
        assert_eq!(
            named.user_file("a.conf"),
            Some(PathBuf::from("/conf/libvirt/a.conf"))
        );
        let derived = of(&[("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "relative")]);
        assert_eq!(derived.user_run_dir, Some(PathBuf::from("/home/u/.cache")));
        assert_eq!(
            derived.user_config_dir,
            Some(PathBuf::from("/home/u/.config"))
        );
        let none = of(&[]);
        assert_eq!(
            (none.user_run_dir.clone(), none.user_file("a.conf")),
            (None, None)
        );
    }
}
