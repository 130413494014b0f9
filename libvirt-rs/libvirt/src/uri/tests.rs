//! Tables of URIs: what they say, what the daemon is told, and what is wrong with those that are refused.

use std::path::Path;

use proptest::prelude::*;

use super::*;

fn uri(text: &str) -> Uri {
    Uri::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn driver_transport_user_host_port_and_path_are_taken_apart() {
    use Transport::{Ext, LibSsh, LibSsh2, Ssh, Tcp, Tls, Unix};
    for (text, driver, transport, user, host, port, path) in [
        ("qemu:///system", "qemu", Unix, None, None, None, "/system"),
        (
            "qemu+unix:///session",
            "qemu",
            Unix,
            None,
            None,
            None,
            "/session",
        ),
        (
            "QEMU+TCP://h/system",
            "qemu",
            Tcp,
            None,
            Some("h"),
            Some(16_509),
            "/system",
        ),
        ("xen://h/", "xen", Tls, None, Some("h"), Some(16_514), "/"),
        ("xen://h", "xen", Tls, None, Some("h"), Some(16_514), ""),
        (
            "xen+tls://h:1/system",
            "xen",
            Tls,
            None,
            Some("h"),
            Some(1),
            "/system",
        ),
        (
            "qemu+ssh://u@h.example.com/system",
            "qemu",
            Ssh,
            Some("u"),
            Some("h.example.com"),
            None,
            "/system",
        ),
        (
            "qemu+ssh://u%40d@h:22/system",
            "qemu",
            Ssh,
            Some("u@d"),
            Some("h"),
            Some(22),
            "/system",
        ),
        (
            "qemu+libssh://h/system",
            "qemu",
            LibSsh,
            None,
            Some("h"),
            None,
            "/system",
        ),
        (
            "qemu+libssh2://h/system",
            "qemu",
            LibSsh2,
            None,
            Some("h"),
            None,
            "/system",
        ),
        (
            "qemu+ext:///system?command=/x",
            "qemu",
            Ext,
            None,
            None,
            None,
            "/system",
        ),
        (
            "qemu+tcp://[::1]/system",
            "qemu",
            Tcp,
            None,
            Some("::1"),
            Some(16_509),
            "/system",
        ),
        (
            "qemu+tcp://[2001:db8::2]:65535/",
            "qemu",
            Tcp,
            None,
            Some("2001:db8::2"),
            Some(65_535),
            "/",
        ),
        (
            "qemu+tcp://[fe80::1%25eth0]/",
            "qemu",
            Tcp,
            None,
            Some("fe80::1%eth0"),
            Some(16_509),
            "/",
        ),
        (
            "qemu+tcp://192.0.2.1/",
            "qemu",
            Tcp,
            None,
            Some("192.0.2.1"),
            Some(16_509),
            "/",
        ),
        (
            "test:///a%20b%3Fc",
            "test",
            Unix,
            None,
            None,
            None,
            "/a b?c",
        ),
        ("", "", Unix, None, None, None, ""),
    ] {
        let uri = uri(text);
        assert_eq!(uri.driver(), driver, "{text}");
        assert_eq!(uri.transport(), transport, "{text}");
        assert_eq!(
            (uri.user(), uri.host(), uri.port()),
            (user, host, port),
            "{text}"
        );
        assert_eq!(uri.path(), path, "{text}");
    }
    assert_eq!(uri("qemu+tcp:///system").host_or_localhost(), "localhost");
}

#[test]
fn the_daemon_is_told_driver_path_and_what_is_not_for_this_end() {
    for (text, name) in [
        ("", ""),
        ("qemu:///system", "qemu:///system"),
        ("qemu+ssh://u@h:22/system", "qemu:///system"),
        ("xen://h/", "xen:///"),
        (
            "qemu+tcp://h/system?socket=/a&no_verify=1&NO_TTY=1",
            "qemu:///system",
        ),
        (
            "qemu+tcp://h/system?x=1&socket=/a;Y=a%20b%26%3D&z",
            "qemu:///system?x=1&Y=a%20b%26%3D&z=",
        ),
        ("test:///a%20b", "test:///a%20b"),
        ("remote+ssh://h/", ""),
        ("remote:///", ""),
        (
            "qemu+tcp://h/system?name=test:///default",
            "test:///default",
        ),
        ("qemu+tcp://h/system?Name=", ""),
        (
            "qemu+tcp://h/system?name=vpx%3A%2F%2Fv%2Fd%3Fa%3Db",
            "vpx://v/d?a=b",
        ),
        ("qemu+tcp://h/system?%73ocket=/a", "qemu:///system"),
    ] {
        assert_eq!(uri(text).name_for_server(), name, "{text}");
    }
}

#[test]
fn every_parameter_for_this_end_is_read() {
    let text = "qemu+ssh://h/system?name=n&command=c&socket=/s&auth=sasl.scram-sha-256&sshauth=agent&netcat=n&\
        keyfile=k&pkipath=/p&known_hosts=h&known_hosts_verify=auto&tls_priority=t&mode=legacy&proxy=netcat&\
        no_sanity=1&no_verify=2&no_tty=-1&authfile=/a";
    let uri = uri(text);
    assert_eq!(uri.name_for_server(), "n");
    assert_eq!(
        uri.auth(),
        Some(&Auth::Sasl(Some("SCRAM-SHA-256".to_owned())))
    );
    let settings = uri.settings();
    assert_eq!(settings.command.as_deref(), Some("c"));
    assert_eq!(settings.socket.as_deref(), Some(Path::new("/s")));
    assert_eq!(settings.sshauth.as_deref(), Some("agent"));
    assert_eq!(settings.netcat.as_deref(), Some("n"));
    assert_eq!(settings.keyfile.as_deref(), Some("k"));
    assert_eq!(settings.pkipath.as_deref(), Some(Path::new("/p")));
    assert_eq!(settings.known_hosts.as_deref(), Some("h"));
    assert_eq!(settings.known_hosts_verify, KnownHosts::Auto);
    assert_eq!(settings.tls_priority.as_deref(), Some("t"));
    assert_eq!(
        (settings.mode, settings.proxy),
        (Mode::Legacy, Proxy::Netcat)
    );
    assert!(settings.no_verify && settings.no_tty);
    assert_eq!(settings.authfile.as_deref(), Some(Path::new("/a")));
    let zero = self::uri("qemu+ssh://h/system?no_verify=0&no_tty=0");
    assert!(!zero.settings().no_verify && !zero.settings().no_tty);
}

#[test]
fn what_is_wrong_is_said_together_with_what_would_be_right() {
    for (text, words) in [
        ("qemu", "qemu:///system"),
        ("/var/run/libvirt/libvirt-sock", "no driver stands before"),
        ("qemu:system", "write qemu:///system"),
        ("qemu:/system", "write qemu:///system"),
        ("qemu+ssh:h/system", "write qemu+ssh:///h/system"),
        ("1qemu:///system", "begins with a letter"),
        ("://h/", "begins with a letter"),
        ("qemu_x:///", "begins with a letter"),
        (
            "qemu+udp://h/",
            "`udp` is no transport; known are unix, tcp",
        ),
        ("qemu+://h/", "`` is no transport"),
        ("qemu+ssh+tcp://h/", "`ssh+tcp` is no transport"),
        ("qemu+unix://h/system", "qemu+ssh://h/"),
        ("qemu+tcp://h:/system", "`` is no port"),
        ("qemu+tcp://h:0/system", "`0` is no port"),
        ("qemu+tcp://h:65536/system", "`65536` is no port"),
        ("qemu+tcp://h:+1/system", "`+1` is no port"),
        (
            "qemu+tcp://h:x/system",
            "`x` is no port; it is a number from 1 to 65535",
        ),
        ("qemu+tcp://[::1]:/system", "`` is no port"),
        ("qemu+tcp://::1/system", "in brackets"),
        ("qemu+tcp://[::1/system", "in brackets"),
        ("qemu+tcp://[::g]/system", "in brackets"),
        ("qemu+tcp://[::1%25]/system", "in brackets"),
        ("qemu+tcp://[::1%25a$b]/system", "in brackets"),
        ("qemu+tcp://[::1]x/system", "in brackets"),
        ("qemu+tcp://[192.0.2.1]/system", "in brackets"),
        ("qemu+ssh://-oProxyCommand=x/", "does not begin with `-`"),
        ("qemu+ssh://%2doProxyCommand/", "does not begin with `-`"),
        ("qemu+ssh://$(reboot)/", "`$(reboot)` is no host"),
        ("qemu+ssh://h%3Breboot/", "`h;reboot` is no host"),
        ("qemu+ssh://u@/system", "has a user, but no host"),
        ("qemu+ssh://:22/system", "has a port, but no host"),
        ("qemu+ssh://@h/system", "empty user"),
        ("qemu+ssh://u:secret@h/system", "auth.conf"),
        ("qemu:///sys tem", "the character ' ' at byte 11"),
        ("qemu:///sys\ntem", "the character '\\n' at byte 11"),
        ("qemu:///system#a", "write %23"),
        ("qemu:///sys%tem", "path of the URI holds a `%`"),
        ("qemu:///sys%4", "path of the URI holds a `%`"),
        ("qemu:///%ff", "path of the URI is not UTF-8"),
        ("qemu:///%00", "holds a NUL"),
        ("qemu:///system?a=%2", "query of the URI holds a `%`"),
        (
            "qemu:///system?socket=/a&SOCKET=/b",
            "`socket` is given twice",
        ),
        (
            "qemu:///system?socket=a",
            "socket=a is not understood; it is a path",
        ),
        ("qemu:///system?socket=", "give it a value"),
        ("qemu:///system?mode=fast", "auto, legacy or direct"),
        ("qemu:///system?proxy=x", "auto, native or netcat"),
        (
            "qemu:///system?known_hosts_verify=x",
            "normal, auto or ignore",
        ),
        ("qemu:///system?no_verify=yes", "1 for yes or 0 for no"),
        ("qemu:///system?no_sanity=x", "1 for yes or 0 for no"),
        ("qemu:///system?auth=kerberos", "sasl.scram-sha-256"),
        ("qemu:///system?auth=sasl.", "sasl.scram-sha-256"),
    ] {
        let error = Uri::parse(text).expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
        assert!(!error.contains("secret"), "{text}: {error}");
    }
    for text in [
        "secret@qemu",
        "secret@qemu+x://h/",
        "qemu+secret@x://h/",
        "qemu:secret@h",
    ] {
        let error = Uri::parse(text).expect_err(text).to_string();
        assert!(!error.contains("secret"), "{text}: {error}");
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let long = format!("qemu:///{}", "a".repeat(limits::MAX_URI));
    assert!(matches!(Uri::parse(&long), Err(Error::TooLong(_))));
    let full = format!("qemu:///system?{}", "a&".repeat(limits::MAX_PARAMETERS));
    uri(&full);
    assert_eq!(
        Uri::parse(&format!("{full}a")),
        Err(Error::TooManyParameters)
    );
}

#[test]
fn a_uri_reads_as_it_is_written() {
    for text in [
        "",
        "qemu:///system",
        "qemu+ssh://u%40d@h:22/system?socket=/a%20b&x=%26",
        "qemu+tcp://[fe80::1%25eth0]:1/",
        "xen://h",
        "test:///a%20b%3Fc",
        "remote+libssh2://h/",
    ] {
        assert_eq!(uri(text).to_string(), text);
        assert_eq!(text.parse::<Uri>().unwrap(), uri(text));
    }
}

proptest! {
    #[test]
    fn display_round_trips(
        driver in "[a-z][a-z0-9.-]{0,8}",
        transport in prop::sample::select(vec!["", "+tcp", "+tls", "+ssh", "+libssh", "+ext"]),
        user in prop::option::of("[^\0]{1,8}"),
        host in prop::sample::select(vec!["h", "a.example", "192.0.2.1", "[::1]", "[fe80::1%25e0]"]),
        port in prop::option::of(1..=u16::MAX),
        path in "[^\0]{0,12}",
        value in "[^\0]{0,12}",
    ) {
        let encoded = |text: &str| encoded(text, COMPONENT).to_string();
        let user = user.map(|user| format!("{}@", encoded(&user))).unwrap_or_default();
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let text = format!(
            "{driver}{transport}://{user}{host}{port}/{}?x={}",
            encoded(&path), encoded(&value)
        );
        let parsed = uri(&text);
        prop_assert_eq!(&uri(&parsed.to_string()), &parsed);
        // What the daemon is told is a URI that says the same to it.
        let told = uri(&parsed.name_for_server());
        prop_assert_eq!((told.driver(), told.path()), (parsed.driver(), parsed.path()));
        prop_assert_eq!(told.name_for_server(), parsed.name_for_server());
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,64}", rest in "[a-z0-9:/?&=@%#\\[\\]+-]{0,64}") {
        let _ = Uri::parse(&text);
        let _ = Uri::parse(&format!("qemu+ssh://{rest}"));
    }
}
