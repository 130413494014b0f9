//! Exchanges with a server that is written here from the RFCs, and with servers that break them.

mod server;

use proptest::prelude::*;

use super::*;
use crate::auth::limits::{MAX_NAME, MAX_OFFERED};
use server::{Hash, Server, base64, unbase64};

fn context(mechanism: Option<&str>) -> Context<'_> {
    Context {
        encrypted: true,
        verified: true,
        mechanism,
        ..Context::new("host.example")
    }
}

fn client(mechanism: &str, credentials: &Credentials) -> Sasl {
    Sasl::new(mechanism, credentials, &context(None)).unwrap()
}

#[test]
fn the_server_of_these_tests_agrees_with_rfc_7677() {
    let mut server = Server::new(Hash::Sha256, "pencil");
    server.salt = unbase64("W22ZaJ0SNY7soEsUEjb6gQ==");
    server.nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let challenge = server.challenge(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let expected =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    assert_eq!(challenge, expected);
    let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let proof = server.proof(last).unwrap();
    assert_eq!(proof, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

#[test]
fn scram_proves_both_ends_whichever_way_the_proof_comes() {
    for (hash, mechanism) in [
        (Hash::Sha256, "SCRAM-SHA-256"),
        (Hash::Sha512, "SCRAM-SHA-512"),
    ] {
        for with_completion in [true, false] {
            let mut server = Server::new(hash, "p,=\u{e9}");
            // SASLprep makes of the two characters the one that the server has.
            let mut sasl = client(mechanism, &Credentials::new("user", "p,=e\u{301}"));
            assert_eq!(sasl.mechanism(), mechanism);
            let first = sasl.start().unwrap().unwrap();
            assert!(first.starts_with(b"n,,n=user,r="));
            let challenge = server.challenge(&first);
            let last = sasl.step(Some(challenge.as_bytes())).unwrap().unwrap();
            let proof = server.proof(&last).unwrap();
            assert!(!sasl.is_done());
            if with_completion {
                sasl.finish(Some(proof.as_bytes())).unwrap();
            } else {
                assert_eq!(sasl.step(Some(proof.as_bytes())).unwrap(), None);
                sasl.finish(None).unwrap();
            }
            assert!(sasl.is_done());
        }
    }
}

/// rsasl's own server, for the hash that the one above lacks.
#[test]
fn scram_with_sha_1_speaks_to_a_server_too() {
    use rsasl::{
        mechanisms::scram::properties::ScramStoredPassword,
        prelude::{SASLServer, Validation},
    };

    // RFC 5802's own example: its keys for the password "pencil".
    const SALT: &str = "QSXCR+Q6sek8bf92";
    const STORED_KEY: &str = "6dlGYMOdZcOPutkcNY8U2g7vK9Y=";
    const SERVER_KEY: &str = "D+CSWLOshSulAsxiupA+qs2/fTE=";

    struct Pencil;
    struct Anybody;
    impl Validation for Anybody {
        type Value = ();
    }
    impl SessionCallback for Pencil {
        fn callback(
            &self,
            _session: &SessionData,
            _exchange: &Exchange<'_>,
            request: &mut Request<'_>,
        ) -> Result<(), SessionError> {
            let (salt, stored, server) =
                (unbase64(SALT), unbase64(STORED_KEY), unbase64(SERVER_KEY));
            let password = ScramStoredPassword::new(4096, &salt, &stored, &server);
            request.satisfy::<ScramStoredPassword<'_>>(&password)?;
            Ok(())
        }
    }
    let config = SASLConfig::builder()
        .with_defaults()
        .with_callback(Pencil)
        .unwrap();
    let name = Mechname::parse(b"SCRAM-SHA-1").unwrap();
    let mut server = SASLServer::<Anybody>::new(config)
        .start_suggested(name)
        .unwrap();
    let mut answer = |message: &[u8]| {
        let mut answer = Vec::new();
        server.step(Some(message), &mut answer).unwrap();
        answer
    };
    let mut sasl = client("SCRAM-SHA-1", &Credentials::new("user", "pencil"));
    let challenge = answer(&sasl.start().unwrap().unwrap());
    let proof = answer(&sasl.step(Some(&challenge)).unwrap().unwrap());
    sasl.finish(Some(&proof)).unwrap();
}

/// A client that has answered the challenge of a server with its password.
fn challenged(server: &mut Server) -> (Sasl, Vec<u8>) {
    let mut sasl = client("SCRAM-SHA-256", &Credentials::new("user", "pencil"));
    let challenge = server.challenge(&sasl.start().unwrap().unwrap());
    let last = sasl.step(Some(challenge.as_bytes())).unwrap().unwrap();
    (sasl, last.to_vec())
}

#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    let mut impostor = Server::new(Hash::Sha256, "pen");
    let (mut sasl, last) = challenged(&mut impostor);
    assert_eq!(impostor.proof(&last), None);
    let proof = format!("v={}", base64(&[7; 32]));
    let error = sasl.finish(Some(proof.as_bytes())).unwrap_err();
    assert!(matches!(error, Error::Impostor { .. }));
    assert!(
        error.to_string().contains("host.example did not prove"),
        "{error}"
    );
    // There is no second try at it.
    assert!(sasl.finish(Some(proof.as_bytes())).is_err());
    assert!(!sasl.is_done());
    // Nor does it help to leave the proof out, at either stage.
    for message in [None, Some(&b""[..])] {
        let (mut sasl, _) = challenged(&mut impostor);
        assert!(matches!(sasl.finish(message), Err(Error::Impostor { .. })));
        let mut sasl = client("SCRAM-SHA-256", &Credentials::new("user", "pencil"));
        sasl.start().unwrap();
        assert!(matches!(sasl.finish(message), Err(Error::Impostor { .. })));
    }
}

#[test]
fn a_server_that_breaks_the_rules_ends_the_exchange() {
    let started = || {
        let mut sasl = client("SCRAM-SHA-256", &Credentials::new("user", "pencil"));
        let first = String::from_utf8(sasl.start().unwrap().unwrap().to_vec()).unwrap();
        let nonce = first.split_once(",r=").unwrap().1.to_owned();
        (sasl, nonce)
    };
    for (challenge, words) in [
        ("", "not of attributes"),
        ("r=NONCEx,s", "not of attributes"),
        ("r=NONCE,s=c2FsdA==,i=4096", "nonce is invalid"),
        ("r=otherx,s=c2FsdA==,i=4096", "nonce is invalid"),
        ("r=NONCEx,s=c2FsdA==,i=1", "asks for 1 rounds"),
        (
            "r=NONCEx,s=c2FsdA==,i=4294967295",
            "asks for 4294967295 rounds",
        ),
        ("r=NONCEx,s=***,i=4096", "base64"),
        (
            "e=unknown-user",
            "does not accept user and password (unknown-user)",
        ),
    ] {
        let (mut sasl, nonce) = started();
        let challenge = challenge.replace("NONCE", &nonce);
        let error = sasl
            .step(Some(challenge.as_bytes()))
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{challenge}: {error}");
        assert!(
            sasl.step(Some(challenge.as_bytes())).is_err(),
            "{challenge}"
        );
        assert!(sasl.finish(None).is_err(), "{challenge}");
    }
    let (mut sasl, _) = started();
    let long = vec![b'a'; MAX_MESSAGE + 1];
    assert!(matches!(sasl.step(Some(&long)), Err(Error::TooLong { .. })));
    let (mut sasl, _) = challenged(&mut Server::new(Hash::Sha256, "pencil"));
    let error = sasl.finish(Some(b"e=invalid-proof")).unwrap_err();
    assert!(matches!(error, Error::Rejected { said, .. } if said == "invalid-proof"));
    let (mut sasl, _) = challenged(&mut Server::new(Hash::Sha256, "pencil"));
    assert!(sasl.step(Some(b"v=*")).is_err());
}

#[test]
fn plain_and_external_are_one_message() {
    let mut plain = client(
        "PLAIN",
        &Credentials::new("bob", "secret").acting_as("alice"),
    );
    assert_eq!(
        plain.start().unwrap().unwrap().as_slice(),
        b"alice\0bob\0secret"
    );
    assert!(plain.is_done());
    plain.finish(Some(b"")).unwrap();
    assert!(plain.step(None).is_err());
    assert!(plain.start().is_err());
    let mut external = client("EXTERNAL", &Credentials::default());
    assert_eq!(external.start().unwrap().unwrap().as_slice(), b"");
    external.finish(None).unwrap();
    let mut external = client("EXTERNAL", &Credentials::default().acting_as("alice"));
    assert_eq!(external.start().unwrap().unwrap().as_slice(), b"alice");
    assert!(external.finish(Some(b"more")).is_err());
}

#[test]
fn the_best_mechanism_that_can_be_used_is_chosen() {
    let bob = Credentials::new("bob", "secret");
    let all = "EXTERNAL,PLAIN,DIGEST-MD5 SCRAM-SHA-1,SCRAM-SHA-256-PLUS,scram-sha-512,SCRAM-SHA-256,GSSAPI";
    for (offered, credentials, encrypted, wanted, chosen) in [
        (all, &bob, true, None, "SCRAM-SHA-512"),
        (all, &bob, false, None, "SCRAM-SHA-512"),
        (
            "PLAIN,SCRAM-SHA-1,SCRAM-SHA-256",
            &bob,
            true,
            None,
            "SCRAM-SHA-256",
        ),
        ("PLAIN,SCRAM-SHA-1", &bob, true, None, "SCRAM-SHA-1"),
        ("PLAIN,EXTERNAL", &bob, true, None, "PLAIN"),
        ("PLAIN,EXTERNAL", &bob, false, None, "EXTERNAL"),
        (all, &bob, true, Some("plain"), "PLAIN"),
        (all, &bob, true, Some("SCRAM-SHA-1"), "SCRAM-SHA-1"),
        (all, &Credentials::default(), true, None, "EXTERNAL"),
    ] {
        let context = Context {
            encrypted,
            ..context(wanted)
        };
        let sasl = Sasl::new(offered, credentials, &context).unwrap();
        assert_eq!(sasl.mechanism(), chosen, "{offered} {encrypted} {wanted:?}");
    }
}

#[test]
fn what_cannot_be_used_is_refused_with_the_way_out() {
    let bob = Credentials::new("bob", "secret");
    let nobody = Credentials::default();
    let mut no_password = bob.clone();
    no_password.password = None;
    for (offered, credentials, encrypted, wanted, words) in [
        (
            "DIGEST-MD5,GSSAPI",
            &bob,
            true,
            None,
            vec!["but DIGEST-MD5, GSSAPI;", "scram-sha-256", "TLS"],
        ),
        (
            "SCRAM-SHA-256-PLUS",
            &bob,
            true,
            None,
            vec!["but SCRAM-SHA-256-PLUS;"],
        ),
        ("", &bob, true, None, vec!["but none at all;"]),
        (
            "\x1b[1m,DIGEST-MD5",
            &bob,
            true,
            None,
            vec!["but DIGEST-MD5;"],
        ),
        (
            "PLAIN",
            &bob,
            false,
            None,
            vec!["not encrypted", "by TLS or ssh"],
        ),
        (
            "PLAIN,SCRAM-SHA-1",
            &bob,
            false,
            Some("PLAIN"),
            vec!["not encrypted"],
        ),
        (
            "PLAIN",
            &bob,
            true,
            Some("SCRAM-SHA-256"),
            vec!["server does not offer it", "offered are PLAIN"],
        ),
        (
            "PLAIN,GSSAPI",
            &bob,
            true,
            Some("GSSAPI"),
            vec!["this client does not know it"],
        ),
        (
            "SCRAM-SHA-256",
            &nobody,
            true,
            None,
            vec!["no user name", "[auth-libvirt-host.example] of auth.conf"],
        ),
        (
            "SCRAM-SHA-256",
            &no_password,
            true,
            None,
            vec!["no password"],
        ),
        (
            "PLAIN",
            &Credentials::new("bob", ""),
            true,
            None,
            vec!["no password"],
        ),
        (
            "PLAIN",
            &Credentials::new("b\0b", "secret"),
            true,
            None,
            vec!["user name holds a NUL"],
        ),
        (
            "PLAIN",
            &Credentials::new("bob", "sec\0ret"),
            true,
            None,
            vec!["password holds a NUL"],
        ),
        (
            "PLAIN",
            &bob.clone().acting_as("\0"),
            true,
            None,
            vec!["act as holds a NUL"],
        ),
    ] {
        let context = Context {
            encrypted,
            ..context(wanted)
        };
        let error = Sasl::new(offered, credentials, &context)
            .unwrap_err()
            .to_string();
        for word in words {
            assert!(error.contains(word), "{offered}: {error}");
        }
        assert!(
            !error.contains("secret") && !error.contains('\x1b'),
            "{offered}: {error}"
        );
    }
    for long in [
        "A,".repeat(MAX_OFFERED) + "PLAIN",
        "A".repeat(MAX_NAME) + "PLAIN",
    ] {
        let error = Sasl::new(&long, &bob, &context(None)).unwrap_err();
        assert!(matches!(error, Error::NoMechanism { .. }));
    }
}

#[test]
fn a_server_that_may_be_another_is_shown_no_password_but_may_prove_itself() {
    let bob = Credentials::new("bob", "secret");
    let unverified = Context {
        verified: false,
        ..context(None)
    };
    let error = Sasl::new("PLAIN", &bob, &unverified).unwrap_err();
    assert!(matches!(error, Error::NotVerified { .. }), "{error:?}");
    let said = error.to_string();
    assert!(
        said.contains("leave no_verify= and known_hosts_verify= out"),
        "{said}"
    );
    for (offered, chosen) in [
        ("PLAIN,SCRAM-SHA-1", "SCRAM-SHA-1"),
        ("PLAIN,EXTERNAL", "EXTERNAL"),
    ] {
        let sasl = Sasl::new(offered, &bob, &unverified).unwrap();
        assert_eq!(sasl.mechanism(), chosen);
    }
    // Nor does who is verified get it where others listen.
    let heard = Context {
        encrypted: false,
        ..context(Some("PLAIN"))
    };
    let error = Sasl::new("PLAIN", &bob, &heard).unwrap_err();
    assert!(matches!(error, Error::NotEncrypted { .. }), "{error:?}");
}

#[test]
fn no_debug_shows_the_password() {
    let mut sasl = client("SCRAM-SHA-256", &Credentials::new("bob", "secret"));
    sasl.start().unwrap();
    let text = format!("{sasl:?}");
    assert!(
        text.contains("SCRAM-SHA-256") && !text.contains("secret"),
        "{text}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_server_makes_a_client_panic(messages in prop::collection::vec("[rsvie=,a-z0-9]{0,32}", 1..4)) {
        let mut sasl = client("SCRAM-SHA-256", &Credentials::new("bob", "secret"));
        sasl.start().unwrap();
        for message in &messages {
            let _ = sasl.step(Some(message.as_bytes()));
        }
        let _ = sasl.finish(Some(messages[0].as_bytes()));
        let (mut sasl, _) = challenged(&mut Server::new(Hash::Sha256, "pencil"));
        prop_assert!(sasl.finish(Some(messages[0].as_bytes())).is_err());
    }
}
