//! What `ssh` is told: its arguments, as a list that no shell of this host reads.

use super::{Error, limits::SSH_ALIVE, process::Command, shell::Remote};
use crate::{
    Environment,
    uri::{KnownHosts, Proxy, Uri},
};

/// The command that reaches the daemon of another host.
///
/// `libssh` and `libssh2` are libraries of libvirt's for the same thing, so they are served by the same program.
pub(super) fn command(
    uri: &Uri,
    environment: &Environment,
    read_only: bool,
) -> Result<Command, Error> {
    let host = uri.host_or_localhost();
    let settings = uri.settings();
    let program = settings.command.clone().unwrap_or_else(|| "ssh".to_owned());
    // No terminal there, and no character that ends the session when it passes by.
    let mut arguments = Arguments(["-T", "-e", "none"].map(str::to_owned).to_vec());
    if let Some(port) = uri.port() {
        arguments.pair("-p", port.to_string());
    }
    if let Some(user) = uri.user() {
        arguments.pair("-l", user.to_owned());
    }
    if let Some(keyfile) = &settings.keyfile {
        // Not by `-i`: that looks whether there is such a file before `%%` has become `%`, and else leaves it out.
        let file = option_value("keyfile", keyfile)?;
        arguments.option(&format!("IdentityFile={file}"));
    }
    if settings.no_tty {
        // Nobody is asked for a password.
        arguments.option("BatchMode=yes");
    }
    if let Some(methods) = &settings.sshauth {
        arguments.option(&format!(
            "PreferredAuthentications={}",
            authentication(methods)?
        ));
    }
    known_hosts(uri, &mut arguments)?;
    // A host that loses its power says nothing; and where a guest does not read its stream, neither does the daemon.
    let (interval, count) = SSH_ALIVE;
    arguments.option(&format!("ServerAliveInterval={}", interval.as_secs()));
    arguments.option(&format!("ServerAliveCountMax={count}"));
    arguments.pair("--", host.to_owned());
    arguments.0.push(remote(uri, environment, read_only)?);
    Ok(Command {
        title: format!("{program} to {host}"),
        program,
        arguments: arguments.0,
    })
}

/// The program of the user's that reaches the daemon by itself.
pub(super) fn external(uri: &Uri) -> Result<Command, Error> {
    let Some(program) = uri.settings().command.clone() else {
        return Err(Error::Unsupported {
            what: "the transport ext".to_owned(),
            why: "is a program of yours, and the URI names none",
            remedy: "name it with command=".to_owned(),
        });
    };
    Ok(Command {
        title: program.clone(),
        program,
        arguments: Vec::new(),
    })
}

struct Arguments(Vec<String>);

impl Arguments {
    fn pair(&mut self, name: &str, value: String) {
        self.0.extend([name.to_owned(), value]);
    }

    fn option(&mut self, option: &str) {
        self.pair("-o", option.to_owned());
    }
}

fn known_hosts(uri: &Uri, arguments: &mut Arguments) -> Result<(), Error> {
    let settings = uri.settings();
    let ignore = settings.no_verify || settings.known_hosts_verify == KnownHosts::Ignore;
    match (&settings.known_hosts, ignore) {
        (Some(file), _) => {
            let file = option_value("known_hosts", file)?;
            arguments.option(&format!("UserKnownHostsFile={file}"));
        }
        // A key that has changed is as good as any: so none may be remembered.
        (None, true) => arguments.option("UserKnownHostsFile=/dev/null"),
        (None, false) => {}
    }
    if ignore {
        arguments.option("StrictHostKeyChecking=no");
    } else if settings.known_hosts_verify == KnownHosts::Auto {
        arguments.option("StrictHostKeyChecking=accept-new");
    }
    Ok(())
}

/// A path as the value of one of ssh's options: in quotation marks, and with its `%` doubled.
///
/// ssh puts the host's name in the place of `%h`, and more in that of its like, even there; and a variable's value in that
/// of `${X}`, which it has no way to write as it is.
fn option_value(name: &str, path: &str) -> Result<String, Error> {
    if path.contains(['"', '\\']) || path.contains("${") || path.contains(char::is_control) {
        return Err(Error::Unsupported {
            what: format!("{name}={}", path.escape_debug()),
            why: "holds what ssh would not read as it stands there",
            remedy: "name a file without `\"`, `\\`, `${` and control characters".to_owned(),
        });
    }
    Ok(format!("\"{}\"", path.replace('%', "%%")))
}

/// libvirt's names for ways to authenticate, as ssh has them.
fn authentication(methods: &str) -> Result<String, Error> {
    let mut names: Vec<_> = methods
        .split(',')
        .map(|method| match method {
            "agent" | "privkey" => Ok("publickey"),
            "password" => Ok("password"),
            "keyboard-interactive" => Ok("keyboard-interactive"),
            _ => Err(Error::Unsupported {
                what: format!("sshauth={methods}"),
                why: "is not understood",
                remedy: "it is a list of agent, privkey, password and keyboard-interactive"
                    .to_owned(),
            }),
        })
        .collect::<Result<_, _>>()?;
    names.dedup();
    Ok(names.join(","))
}

fn remote(uri: &Uri, environment: &Environment, read_only: bool) -> Result<String, Error> {
    let settings = uri.settings();
    let session = uri.path() == "/session";
    // Who names a socket, or the program for it, means that one and not what the helper finds.
    let named = settings.socket.is_some() || settings.netcat.is_some();
    let proxy = match settings.proxy {
        Proxy::Auto if named => Proxy::Netcat,
        Proxy::Native if named => {
            return Err(Error::Unsupported {
                what: "proxy=native".to_owned(),
                why: "finds the socket by itself, and the URI names a socket or netcat",
                remedy: "leave one of them out".to_owned(),
            });
        }
        // Where that user's sockets are is known to the helper alone.
        Proxy::Auto if session => Proxy::Native,
        Proxy::Auto | Proxy::Native | Proxy::Netcat => settings.proxy,
    };
    if proxy == Proxy::Netcat && session && settings.socket.is_none() {
        return Err(Error::Unsupported {
            what: "a session daemon of another host".to_owned(),
            why: "has its socket where only virt-ssh-helper there finds it",
            remedy: "leave proxy=netcat and netcat= out, or name the socket with socket="
                .to_owned(),
        });
    }
    let suffix = if read_only { "-ro" } else { "" };
    let default = environment
        .run_dir
        .join(format!("libvirt/libvirt-sock{suffix}"));
    let socket = settings.socket.as_ref().unwrap_or(&default);
    let name = uri.name_for_server();
    // The helper wants a URI even where the daemon is to find out: this one leads it to libvirtd's socket.
    let name = if name.is_empty() {
        format!("remote://{}", uri.path())
    } else {
        name
    };
    Remote {
        proxy,
        netcat: settings.netcat.as_deref().unwrap_or("nc"),
        socket: &socket.display().to_string(),
        uri: &name,
        read_only,
    }
    .command()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Result<Vec<String>, String> {
        let uri = Uri::parse(text).unwrap();
        command(&uri, &Environment::of_process(), false)
            .map(|command| command.arguments)
            .map_err(|error| error.to_string())
    }

    /// All but the remote command, and but what is always there.
    fn options(text: &str) -> String {
        let mut arguments = arguments(text).unwrap();
        arguments.pop();
        let alive = " -o ServerAliveInterval=10 -o ServerAliveCountMax=3";
        let options = arguments.join(" ");
        let (before, behind) = options.split_once(alive).unwrap();
        format!("{before}{behind}")
    }

    fn remote_command(text: &str) -> String {
        arguments(text).unwrap().pop().unwrap()
    }

    #[test]
    fn the_uris_parameters_become_sshs_options() {
        for (uri, expected) in [
            ("qemu+ssh://h/system", "-T -e none -- h"),
            ("qemu+libssh2://h/system", "-T -e none -- h"),
            ("qemu+ssh:///system", "-T -e none -- localhost"),
            ("qemu+ssh://[::1]:22/system", "-T -e none -p 22 -- ::1"),
            (
                "qemu+ssh://u@h/system?keyfile=/k&no_tty=1",
                "-T -e none -l u -o IdentityFile=\"/k\" -o BatchMode=yes -- h",
            ),
            (
                "qemu+ssh://h/system?keyfile=~/a%20%25h%24b%27%23",
                "-T -e none -o IdentityFile=\"~/a %%h$b'#\" -- h",
            ),
            (
                "qemu+ssh://h/system?known_hosts=/a%20b%25&known_hosts_verify=auto",
                "-T -e none -o UserKnownHostsFile=\"/a b%%\" -o StrictHostKeyChecking=accept-new -- h",
            ),
            (
                "qemu+ssh://h/system?no_verify=1",
                "-T -e none -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -- h",
            ),
            (
                "qemu+ssh://h/system?known_hosts_verify=ignore&known_hosts=/k",
                "-T -e none -o UserKnownHostsFile=\"/k\" -o StrictHostKeyChecking=no -- h",
            ),
            (
                "qemu+libssh://h/system?sshauth=agent,privkey,password",
                "-T -e none -o PreferredAuthentications=publickey,password -- h",
            ),
        ] {
            assert_eq!(options(uri), expected, "{uri}");
        }
    }

    #[test]
    fn no_value_of_the_uri_becomes_an_option_of_its_own() {
        let hostile = "qemu+ssh://%2doProxyCommand=reboot@h/system?keyfile=-oProxyCommand=reboot";
        let arguments = arguments(hostile).unwrap();
        let at = |name: &str| arguments.iter().position(|each| each == name).unwrap();
        // Both stand where ssh expects a value, whatever it begins with.
        assert_eq!(arguments[at("-l") + 1], "-oProxyCommand=reboot");
        let key = "IdentityFile=\"-oProxyCommand=reboot\"";
        assert_eq!(arguments[at("-o") + 1], key);
        assert_eq!(arguments[at("--") + 1], "h");
    }

    #[test]
    fn the_way_on_from_the_host_follows_proxy_socket_and_path() {
        let (helper, netcat) = ("virt-ssh-helper", "-U");
        for (uri, has, lacks) in [
            (
                "qemu+ssh://h/system",
                vec![helper, netcat, "qemu:///system", "/libvirt-sock"],
                vec![],
            ),
            (
                "qemu+ssh://h/system?proxy=native",
                vec![helper, "qemu:///system"],
                vec![netcat],
            ),
            (
                "qemu+ssh://h/system?proxy=netcat",
                vec![netcat],
                vec![helper],
            ),
            (
                "qemu+ssh://h/system?socket=/a%20b",
                vec![netcat, "/a b"],
                vec![helper, "libvirt-sock"],
            ),
            (
                "qemu+ssh://h/system?netcat=/bin/ncat",
                vec![netcat, "/bin/ncat"],
                vec![helper],
            ),
            (
                "qemu+ssh://h/session",
                vec![helper, "qemu:///session"],
                vec![netcat],
            ),
            (
                "qemu+ssh://h/session?socket=/s",
                vec![netcat, "/s"],
                vec![helper],
            ),
            ("remote+ssh://h/", vec!["remote:///"], vec![]),
            (
                "qemu+ssh://h/system?name=xen:///",
                vec!["xen:///"],
                vec!["qemu"],
            ),
        ] {
            let command = remote_command(uri);
            assert!(command.starts_with("sh -c '"), "{command}");
            assert!(
                has.iter().all(|part| command.contains(part)),
                "{uri}: {command}"
            );
            assert!(
                !lacks.iter().any(|part| command.contains(part)),
                "{uri}: {command}"
            );
        }
        let uri = Uri::parse("qemu+ssh://h/system").unwrap();
        let readers = command(&uri, &Environment::of_process(), true).unwrap();
        let line = readers.arguments.last().unwrap();
        assert!(
            line.contains("helper -r ") && line.contains("libvirt-sock-ro"),
            "{line}"
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (uri, words) in [
            (
                "qemu+ssh://h/session?proxy=netcat",
                "only virt-ssh-helper there",
            ),
            (
                "qemu+ssh://h/session?netcat=nc",
                "only virt-ssh-helper there",
            ),
            (
                "qemu+ssh://h/system?proxy=native&socket=/s",
                "leave one of them out",
            ),
            ("qemu+ssh://h/system?sshauth=gssapi", "list of agent"),
            ("qemu+ssh://h/system?known_hosts=/a%22b", "without `\"`"),
            (
                "qemu+ssh://h/system?known_hosts=/%24{HOME}/a",
                "known_hosts=/${HOME}/a holds what ssh",
            ),
            ("qemu+ssh://h/system?keyfile=/a%22b", "without `\"`"),
            ("qemu+ssh://h/system?keyfile=/a%5Cb", "keyfile="),
            ("qemu+ssh://h/system?keyfile=/a%0Ab", "keyfile="),
            (
                "qemu+ssh://h/system?keyfile=%24{HOME}/k",
                "keyfile=${HOME}/k holds what ssh",
            ),
            ("qemu+ssh://h/system?name=-V", "would be an option"),
            ("qemu+ssh://h/system?netcat=n%0Ac", "control character"),
        ] {
            let error = arguments(uri).unwrap_err();
            assert!(error.contains(words), "{uri}: {error}");
        }
        let uri = Uri::parse("qemu+ext:///system").unwrap();
        let error = external(&uri).err().unwrap().to_string();
        assert!(error.contains("command="), "{error}");
    }
}
