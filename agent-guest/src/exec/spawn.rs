//! Starts a process. All of this may block, and runs on a thread where it may.
//!
//! What can be told apart only before the process is started is looked at first: fork and exec say "no such file" for a
//! missing program, a missing folder and a missing interpreter alike.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{fs::PermissionsExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{self, Child, Stdio},
    sync::Mutex,
};

use rustix::process::{Pid, Signal, getegid, geteuid, kill_process_group};
use tonic::Status;

use super::{
    command::Command,
    identity::{self, Identity, Way},
    process::lock,
    pty,
};
use crate::{
    error::{self, Reason},
    files::path::by_descriptor,
};

/// Where programs are looked for if the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Any of these makes a file a program.
const EXECUTABLE: u32 = 0o111;

/// Variables from which the C library takes what it loads or reads, beside those that begin with LD_. It takes none of them in
/// set-user-id programs.
const LOADERS: [&str; 13] = [
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "MALLOC_TRACE",
    "MUSL_LOCPATH",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "TZDIR",
];

/// Only one process is started at a time: a terminal is closed on exec only from the moment after it was opened, and
/// another process must not inherit it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A process that was started. Dropped before [`into_parts`](Self::into_parts) it is killed.
#[derive(Debug)]
pub(super) struct Spawned {
    parts: Option<Parts>,
    pub(super) pid: Pid,
    pub(super) user: String,
}

/// A process, and the agent's ends of its pipes. A terminal is both its input and its output.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) child: Child,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: Option<OwnedFd>,
}

/// Starts a command, in the directory that it was granted, or else in the one that it says.
pub(super) fn spawn(command: &Command, granted: Option<&OwnedFd>) -> Result<Spawned, Status> {
    let own = (geteuid().as_raw(), getegid().as_raw());
    let identity = identity::find(command, Path::new("/"), own)?;
    check_environment(command, &identity.way)?;
    let variables = environment(command, &identity, env::vars_os());
    let directory = match granted {
        // Open here, and so in the child until it becomes the program.
        Some(granted) => by_descriptor(granted.as_fd()).into(),
        None => directory(command, &identity)?,
    };
    let path = variables.get(OsStr::new("PATH"));
    let path = path.map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
    // A command has at least one argument.
    let name = command.argv.first().map(String::as_str).unwrap_or_default();
    let program = program(name, path, &directory)?;
    let mut prepared = prepare(command, &identity.way, &program);
    prepared
        .env_clear()
        .envs(&variables)
        .current_dir(&directory);
    let parts = {
        let _turn = lock(&ONE_AT_A_TIME);
        start(prepared, command, &identity)
    };
    let parts = parts.map_err(|error| refused(name, &program, &directory, &error))?;
    let pid = Pid::from_child(&parts.child);
    be_ordinary(pid);
    Ok(Spawned {
        parts: Some(parts),
        pid,
        user: identity.name,
    })
}

fn prepare(command: &Command, way: &Way, program: &Path) -> process::Command {
    let arguments = command.argv.iter().skip(1);
    let mut prepared = match way {
        Way::Setpriv { path, uid, gid } => {
            let mut prepared = process::Command::new(path);
            prepared
                .arg(format!("--reuid={uid}"))
                .arg(format!("--regid={gid}"))
                .args(["--init-groups", "--"])
                .arg(program);
            prepared
        }
        Way::Own | Way::Direct { .. } => {
            let mut prepared = process::Command::new(program);
            prepared.arg0(command.argv.first().map_or("", String::as_str));
            prepared
        }
    };
    if let Way::Direct { uid, gid } = way {
        prepared.gid(*gid);
        if let Some(uid) = uid {
            prepared.uid(*uid);
        }
    }
    prepared.args(arguments);
    prepared
}

fn start(
    mut prepared: process::Command,
    command: &Command,
    identity: &Identity,
) -> io::Result<Parts> {
    let streams = &command.streams;
    if let Some(terminal) = &streams.terminal {
        let owner = match identity.way {
            Way::Own => None,
            Way::Direct { uid, .. } => uid,
            Way::Setpriv { uid, .. } => Some(uid),
        };
        let (child, terminal) = pty::spawn(prepared, terminal, streams.stdin, owner)?;
        return Ok(Parts {
            child,
            stdin: streams.stdin.then(|| terminal.try_clone()).transpose()?,
            stdout: terminal,
            stderr: None,
        });
    }
    // A terminal's process leads a session, and so a group.
    prepared.process_group(0);
    let stdin = match streams.stdin {
        false => {
            prepared.stdin(Stdio::null());
            None
        }
        true => {
            let (theirs, own) = io::pipe()?;
            prepared.stdin(theirs);
            Some(own.into())
        }
    };
    let (stdout, theirs) = io::pipe()?;
    let stderr = match streams.merge_stderr {
        true => {
            prepared.stderr(theirs.try_clone()?);
            None
        }
        false => {
            let (stderr, theirs) = io::pipe()?;
            prepared.stderr(theirs);
            Some(stderr.into())
        }
    };
    prepared.stdout(theirs);
    // The process's ends are closed with `prepared`, when this returns.
    Ok(Parts {
        child: prepared.spawn()?,
        stdin,
        stdout: stdout.into(),
        stderr,
    })
}

/// The agent is the last to be killed when memory is short; what it starts is not.
fn be_ordinary(pid: Pid) {
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    if own.starts_with('-') {
        let path = format!("/proc/{}/oom_score_adj", pid.as_raw_pid());
        // It may have ended, and where the kernel refuses it is killed later than others: no reason to fail.
        let _ = fs::write(path, "0");
    }
}

/// Setpriv is still root when it gets the caller's variables: none of them may say what is loaded into it.
fn check_environment(command: &Command, way: &Way) -> Result<(), Status> {
    if !matches!(way, Way::Setpriv { .. }) {
        return Ok(());
    }
    let is_loaders = |name: &str| name.starts_with("LD_") || LOADERS.contains(&name);
    let mut variables = command.environment.iter().enumerate();
    let found = variables.find(|(_, (name, value))| value.is_some() && is_loaders(name));
    match found {
        None => Ok(()),
        Some((index, (name, _))) => {
            let field = format!("command.environment[{index}].name");
            let description = format!(
                "must not be {name} together with a user, for setpriv would take it while it is root: have env(1) set it"
            );
            Err(error::invalid_field(field, description))
        }
    }
}

/// The variables of a process.
fn environment(
    command: &Command,
    identity: &Identity,
    own: impl Iterator<Item = (OsString, OsString)>,
) -> BTreeMap<OsString, OsString> {
    let mut variables: BTreeMap<_, _> = match command.clear_environment {
        true => BTreeMap::new(),
        false => own.collect(),
    };
    let mut set = |name: &str, value: &str| variables.insert(name.into(), value.into());
    if let Some(user) = &identity.user {
        set("HOME", &user.home);
        set("USER", &user.name);
        set("LOGNAME", &user.name);
        let has_shell = !user.shell.is_empty();
        // passwd(5).
        set("SHELL", if has_shell { &user.shell } else { "/bin/sh" });
    }
    if let Some(terminal) = &command.streams.terminal {
        set("TERM", &terminal.term);
    }
    let path = OsString::from("PATH");
    variables.entry(path).or_insert_with(|| DEFAULT_PATH.into());
    for (name, value) in &command.environment {
        match value {
            Some(value) => variables.insert(name.into(), value.into()),
            None => variables.remove(OsStr::new(name)),
        };
    }
    variables
}

/// Where a process runs.
fn directory(command: &Command, identity: &Identity) -> Result<PathBuf, Status> {
    let Some(wanted) = &command.directory else {
        // As a login does it: a home that is not there is no reason to fail.
        let home = identity.user.as_ref().map(|user| Path::new(&user.home));
        let home = home.filter(|home| home.is_absolute() && home.is_dir());
        return Ok(home.unwrap_or(Path::new("/")).to_owned());
    };
    let reason = match fs::metadata(wanted) {
        Ok(found) if found.is_dir() => return Ok(wanted.into()),
        Ok(_) => {
            let message = format!("the working directory {wanted:?} is no directory in the guest");
            return Err(error::failure(Reason::WrongFileType, message));
        }
        Err(error) => error,
    };
    let message = format!("can't run in the working directory {wanted:?}: {reason}");
    let reason = match reason.kind() {
        io::ErrorKind::NotFound => Reason::FileNotFound,
        io::ErrorKind::PermissionDenied => Reason::PermissionDenied,
        io::ErrorKind::NotADirectory => Reason::WrongFileType,
        _ => Reason::CmdExecFailed,
    };
    Err(error::failure(reason, message))
}

/// The file of a program: as it is named if there is a slash in its name, else in the folders of `path`.
fn program(name: &str, path: &OsStr, directory: &Path) -> Result<PathBuf, Status> {
    if name.contains('/') {
        let file = directory.join(name);
        return match check(&file) {
            Ok(()) => Ok(file),
            Err(error) if is_missing(&error) => {
                let message = format!("there is no program {name:?} in the guest");
                Err(error::failure(Reason::CmdNotFound, message))
            }
            Err(error) => Err(failed(name, &error)),
        };
    }
    let mut reason = None;
    for folder in env::split_paths(path) {
        let file = directory.join(folder).join(name);
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(error) if is_missing(&error) => {}
            Err(error) => reason = Some(error),
        }
    }
    Err(match reason {
        Some(error) => failed(name, &error),
        None => {
            let path = path.display();
            let message = format!("there is no program {name:?} in the guest's PATH ({path})");
            error::failure(Reason::CmdNotFound, message)
        }
    })
}

/// Whether a file can be a program, as far as can be seen without the user's rights.
fn check(file: &Path) -> io::Result<()> {
    let found = fs::metadata(file)?;
    match found.is_file() && found.permissions().mode() & EXECUTABLE != 0 {
        true => Ok(()),
        false => Err(rustix::io::Errno::ACCESS.into()),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn failed(name: &str, error: &io::Error) -> Status {
    let message = format!("the program {name:?} can't be run: {error}");
    error::failure(Reason::CmdExecFailed, message)
}

/// What fork or exec have said.
fn refused(name: &str, program: &Path, directory: &Path, error: &io::Error) -> Status {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "; it is there, but what it is run by is not (see its first line, or `ldd`)"
        }
        io::ErrorKind::PermissionDenied => {
            let (program, directory) = (program.display(), directory.display());
            &format!("; may the user run {program} and enter {directory}?")
        }
        _ => "",
    };
    let message = format!("the program {name:?} can't be run: {error}{hint}");
    error::failure(Reason::CmdExecFailed, message)
}

// === impl Spawned ===

impl Spawned {
    pub(super) fn into_parts(mut self) -> Option<Parts> {
        self.parts.take()
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if let Some(mut parts) = self.parts.take() {
            // Its caller has gone while it was started. It was not waited for, so the process id is still its own.
            let _ = kill_process_group(self.pid, Signal::KILL);
            let _ = parts.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use vbridge_api::guest::v1 as api;

    use super::*;
    use crate::source::passwd::User;

    fn command(change: impl FnOnce(&mut api::Command)) -> Command {
        let mut command = api::Command {
            argv: vec!["true".to_owned()],
            ..api::Command::default()
        };
        change(&mut command);
        super::super::command::start(api::ExecStart {
            command: Some(command),
            terminal: Some(api::Terminal::default()),
            ..api::ExecStart::default()
        })
        .unwrap()
    }

    fn identity(home: &str) -> Identity {
        Identity {
            way: Way::Own,
            name: "ann".to_owned(),
            user: Some(User {
                name: "ann".to_owned(),
                uid: 10,
                gid: 20,
                home: home.to_owned(),
                shell: String::new(),
            }),
        }
    }

    #[test]
    fn the_callers_variables_come_after_the_users_and_the_users_after_the_agents() {
        let own = || [("HOME", "/root"), ("LANG", "C")].map(|(a, b)| (a.into(), b.into()));
        let variable = |name: &str, value: Option<&str>| api::EnvironmentVariable {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        };
        let of = |clear| {
            let command = command(|it| {
                it.clear_environment = clear;
                it.environment = vec![
                    variable("USER", Some("eve")),
                    variable("LOGNAME", None),
                    variable("EMPTY", Some("")),
                ];
            });
            let variables = environment(&command, &identity("/home/ann"), own().into_iter());
            let text = variables.into_iter().map(|(name, value)| {
                let (name, value) = (name.into_string().unwrap(), value.into_string().unwrap());
                format!("{name}={value}")
            });
            text.collect::<Vec<_>>()
        };
        let mut expected = vec![
            "EMPTY=".to_owned(),
            "HOME=/home/ann".to_owned(),
            "LANG=C".to_owned(),
            format!("PATH={DEFAULT_PATH}"),
            "SHELL=/bin/sh".to_owned(),
            "TERM=xterm-256color".to_owned(),
            "USER=eve".to_owned(),
        ];
        assert_eq!(of(false), expected);
        expected.remove(2);
        assert_eq!(of(true), expected);
    }

    #[test]
    fn nothing_of_the_callers_is_loaded_into_setpriv() {
        let setpriv = Way::Setpriv {
            path: "/usr/bin/setpriv".into(),
            uid: 10,
            gid: 20,
        };
        let of = |name: &str, value: Option<&str>, way| {
            let command = command(|it| {
                it.environment = vec![api::EnvironmentVariable {
                    name: name.to_owned(),
                    value: value.map(str::to_owned),
                }];
            });
            check_environment(&command, way)
        };
        for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "LOCPATH"] {
            let status = of(name, Some("/tmp/secret"), &setpriv).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            let message = status.message();
            assert!(message.starts_with("command.environment[0].name: "));
            assert!(message.contains(name) && !message.contains("secret"));
            assert!(of(name, None, &setpriv).is_ok(), "{name} may be taken away");
            assert!(of(name, Some("/tmp/x"), &Way::Own).is_ok());
        }
        assert!(of("TMPDIR", Some("/tmp/x"), &setpriv).is_ok());
        assert!(of("LANG", Some("C"), &setpriv).is_ok());
    }

    #[test]
    fn a_command_runs_where_it_says_or_at_home_or_at_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let of = |wanted: &str, home| {
            let command = command(|it| it.working_directory = wanted.to_owned());
            directory(&command, &identity(home))
        };
        assert_eq!(of("", home).unwrap(), dir.path());
        assert_eq!(of("", "/no/such/home").unwrap(), Path::new("/"));
        assert_eq!(of("/tmp", home).unwrap(), Path::new("/tmp"));
        let status = of("/no/such/folder", home).unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().contains("working directory"), "{status}");
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let status = of(file.to_str().unwrap(), home).unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
    }

    #[test]
    fn a_program_is_looked_for_as_a_shell_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        file("one/tool", 0o644);
        let tool = file("two/tool", 0o755);
        file("one/text", 0o644);
        let path = OsString::from("one:two");
        let of = |name| program(name, &path, dir.path());
        assert_eq!(of("tool").unwrap(), tool);
        assert_eq!(of("two/tool").unwrap(), tool);
        assert_eq!(of("text").unwrap_err().code(), Code::FailedPrecondition);
        assert_eq!(of("./two").unwrap_err().code(), Code::FailedPrecondition);
        assert_eq!(of("none").unwrap_err().code(), Code::NotFound);
        assert_eq!(of("two/tool/x").unwrap_err().code(), Code::NotFound);
    }
}
