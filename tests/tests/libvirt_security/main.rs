//! Who may come in, and how: TLS, SASL, ssh, and sockets with and without them, through the Rust client on a private
//! libvirtd.
//!
//! A refusal is one sentence, which names what has to be changed; each test says what it must name.
//!
//! | file | which way |
//! |---|---|
//! | `tls` | certificates, good and bad |
//! | `sasl` | user names and passwords |
//! | `ssh` | a real sshd on the loopback device |
//! | `sockets` | sockets without any of these, those for readers, and those where nobody answers |

mod sasl;
mod sockets;
mod ssh;
mod tls;

use anyhow::{Result, bail, ensure};
use libvirt::{Builder, Connect, Error};
use vbridge_tests::libvirt::limits::CLIENT;

/// Opens a connection on which no call waits for ever.
fn to(uri: &str) -> Builder {
    Connect::builder(uri).deadline(CLIENT)
}

/// Opens, and asks something that only those may ask who have come in.
async fn comes_in(builder: Builder) -> Result<Connect> {
    let connect = builder.open().await?;
    let name = connect.domain_by_name("test").await?.name().to_owned();
    ensure!(name == "test", "{name}");
    Ok(connect)
}

/// Why nobody comes in: one sentence on one line that names all of `words`.
async fn is_refused(builder: Builder, words: &[&str]) -> Result<Error> {
    let error = match builder.open().await {
        Ok(connect) => bail!("{connect:?} came in, and should have been refused"),
        Err(error) => error,
    };
    let said = error.to_string();
    for word in words {
        ensure!(said.contains(word), "{said:?} does not say {word:?}");
    }
    ensure!(!said.contains('\n'), "more than one line: {said:?}");
    // What caused it stands in the sentence, or is a source: never in both.
    let source = std::error::Error::source(&error).map(ToString::to_string);
    let twice = source.is_some_and(|source| said.contains(&source));
    ensure!(!twice, "{said:?} repeats its source");
    eprintln!("{said}");
    Ok(error)
}
