//! Exchanges with a server that is written here from the RFCs, and with servers that break them.

use hmac::{Hmac, KeyInit as _, Mac as _};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256, Sha512};

use super::*;
use crate::auth::limits::{MAX_NAME, MAX_OFFERED};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let index = (bits >> (18 - 6 * at)) & 63;
            text.push(if at <= chunk.len() {
                ALPHABET[index as usize] as char
            } else {
                '='
            });
        }
    }
    text
}

fn unbase64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let digits = text.trim_end_matches('=').bytes();
    let digits: Vec<_> = digits
        .map(|digit| ALPHABET.iter().position(|&each| each == digit).unwrap())
        .collect();
    for chunk in digits.chunks(4) {
        let bits = chunk.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - chunk.len()));
        for at in 0..chunk.len() - 1 {
            bytes.push(u8::try_from((bits >> (16 - 8 * at)) & 0xff).unwrap());
        }
    }
    bytes
}

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn mac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let message = parts.concat();
        match self {
            Self::Sha256 => {
                let mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
                mac.chain_update(&message).finalize().into_bytes().to_vec()
            }
            Self::Sha512 => {
                let mac = Hmac::<Sha512>::new_from_slice(key).unwrap();
                mac.chain_update(&message).finalize().into_bytes().to_vec()
            }
        }
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    /// RFC 5802's Hi().
    fn salted(self, password: &str, salt: &[u8], count: u32) -> Vec<u8> {
        let mut last = self.mac(password.as_bytes(), &[salt, &1_u32.to_be_bytes()]);
        let mut all = last.clone();
        for _ in 1..count {
            last = self.mac(password.as_bytes(), &[&last]);
            all = xor(&all, &last);
        }
        all
    }
}

fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter()
        .zip(right)
        .map(|(left, right)| left ^ right)
        .collect()
}

/// A server of RFC 5802 that knows one password.
struct Server {
    hash: Hash,
    password: &'static str,
    salt: Vec<u8>,
    count: u32,
    nonce: &'static str,
    /// The client's first message without its header, and this server's answer.
    said: String,
}

impl Server {
    fn new(hash: Hash, password: &'static str) -> Self {
        Self {
            hash,
            password,
            salt: b"salt of this user".to_vec(),
            count: 4096,
            nonce: "%of-server",
            said: String::new(),
        }
    }

    fn challenge(&mut self, first: &[u8]) -> String {
        let first = std::str::from_utf8(first).unwrap();
        // The header: no channel binding, and whom to act as.
        let bare = first.splitn(3, ',').nth(2).unwrap();
        let (_, nonce) = bare.split_once(",r=").unwrap();
        let salt = base64(&self.salt);
        let answer = format!("r={nonce}{},s={salt},i={}", self.nonce, self.count);
        self.said = format!("{bare},{answer}");
        answer
    }

    /// Its proof, if the client's is right.
    fn proof(&self, last: &[u8]) -> Option<String> {
        let last = std::str::from_utf8(last).unwrap();
        let (without, proof) = last.split_once(",p=").unwrap();
        let signed = format!("{},{without}", self.said);
        let salted = self.hash.salted(self.password, &self.salt, self.count);
        let client = self.hash.mac(&salted, &[b"Client Key"]);
        let stored = self.hash.digest(&client);
        let signature = self.hash.mac(&stored, &[signed.as_bytes()]);
        if self.hash.digest(&xor(&unbase64(proof), &signature)) != stored {
            return None;
        }
        let server = self.hash.mac(&salted, &[b"Server Key"]);
        Some(format!(
            "v={}",
            base64(&self.hash.mac(&server, &[signed.as_bytes()]))
        ))
    }
}

fn context(mechanism: Option<&str>) -> Context<'_> {
    Context {
        encrypted: true,
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
    let mut answer = |message: Vec<u8>| {
        let mut answer = Vec::new();
        server.step(Some(&message), &mut answer).unwrap();
        answer
    };
    let mut sasl = client("SCRAM-SHA-1", &Credentials::new("user", "pencil"));
    let challenge = answer(sasl.start().unwrap().unwrap());
    let proof = answer(sasl.step(Some(&challenge)).unwrap().unwrap());
    sasl.finish(Some(&proof)).unwrap();
}

/// A client that has answered the challenge of a server with its password.
fn challenged(server: &mut Server) -> (Sasl, Vec<u8>) {
    let mut sasl = client("SCRAM-SHA-256", &Credentials::new("user", "pencil"));
    let challenge = server.challenge(&sasl.start().unwrap().unwrap());
    let last = sasl.step(Some(challenge.as_bytes())).unwrap().unwrap();
    (sasl, last)
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
        let first = String::from_utf8(sasl.start().unwrap().unwrap()).unwrap();
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
    assert_eq!(plain.start().unwrap().unwrap(), b"alice\0bob\0secret");
    assert!(plain.is_done());
    plain.finish(Some(b"")).unwrap();
    assert!(plain.step(None).is_err());
    assert!(plain.start().is_err());
    let mut external = client("EXTERNAL", &Credentials::default());
    assert_eq!(external.start().unwrap().as_deref(), Some(&b""[..]));
    external.finish(None).unwrap();
    let mut external = client("EXTERNAL", &Credentials::default().acting_as("alice"));
    assert_eq!(external.start().unwrap().unwrap(), b"alice");
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
