//! `vbridge cp`: files and trees between here and a guest.
//!
//! | what | how |
//! |---|---|
//! | a file to a guest | `Files.Write` under an id made of what is sent and where to: sent again, it goes on where it was broken off |
//! | a file from a guest | `Files.Read` into a file beside the new one, under a name made of what is read: likewise |
//! | a tree | `Files.PushTree` and `PullTree`, as a tar archive |
//!
//! A file takes its new name when it is there as a whole and its SHA-256 is the other end's. Holes stay holes.

mod down;
mod progress;
mod tree;
mod up;

use std::{path::Path, time::Duration};

use clap::Args;
use sha2::{Digest as _, Sha256};

use super::{
    super::{
        client::{Client, ClientOptions},
        duration,
        failure::Failure,
        output::{Output, printable},
        say,
    },
    list::hex,
    place::{GuestPath, Place},
};

/// Bytes of content in one message, and of one read of a file.
const PIECE: usize = 128 * 1024;

/// Pieces between a file and the call.
const QUEUE: usize = 4;

#[derive(Debug, Args)]
#[command(override_usage = "vbridge cp [OPTIONS] FILE... NAME:PATH
       vbridge cp [OPTIONS] NAME:PATH... FILE")]
pub(in crate::cli) struct Options {
    /// What to copy, and last where to: paths here, or NAME:PATH in a guest
    #[arg(value_name = "FILE", num_args = 2.., required = true)]
    places: Vec<Place>,
    /// Directories with all that is in them, too
    #[arg(long, short = 'r')]
    recursive: bool,
    /// Keep modes and times, also where they would be more than usual, and the owners of what is in directories
    #[arg(long, short = 'p')]
    preserve: bool,
    /// Do not replace files that are there
    #[arg(long)]
    no_overwrite: bool,
    /// No progress bar
    #[arg(long, short = 'q')]
    quiet: bool,
    /// How long to wait for a guest that is not there yet
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    client: ClientOptions,
}

/// Copies all; what fails is told, and the others are copied nevertheless, as with cp(1).
pub(in crate::cli) async fn run(options: &Options) -> Result<(), Failure> {
    let Some((to, from)) = options.places.split_last() else {
        return Err(Failure::new("name what to copy, and where to"));
    };
    if options.client.output == Output::Json {
        return Err(Failure::new(
            "cp has no answer to write: leave out --output json",
        ));
    }
    let mut failures = 0;
    match to {
        Place::Guest(to) => {
            let client = client(options, to).await?;
            for from in from {
                let Place::Here(from) = from else {
                    return Err(between_guests());
                };
                failures += told(up::copy(options, &client, from, to).await)?;
            }
        }
        Place::Here(to) => {
            let mut guest: Option<(Option<String>, Client)> = None;
            for from in from {
                let Place::Guest(from) = from else {
                    return Err(Failure::new(
                        "neither is in a guest: write NAME:PATH for what is; cp(1) copies here",
                    ));
                };
                // One connection serves all that come from one guest.
                let known = guest.take().filter(|(name, _)| *name == from.guest);
                let (_, client) = guest.insert(match known {
                    Some(known) => known,
                    None => (from.guest.clone(), client(options, from).await?),
                });
                failures += told(down::copy(options, client, from, to).await)?;
            }
        }
    }
    match failures {
        0 => Ok(()),
        _ => Err(Failure::Told),
    }
}

async fn client(options: &Options, place: &GuestPath) -> Result<Client, Failure> {
    Client::named(&options.client, place.guest.as_deref(), options.wait).await
}

fn between_guests() -> Failure {
    Failure::new("both are in guests: copy it here first, and from here on")
}

/// 1 for what has failed and was told.
fn told(copied: Result<(), Failure>) -> Result<usize, Failure> {
    match copied {
        Ok(()) => Ok(0),
        Err(Failure::NobodyReads) => Err(Failure::NobodyReads),
        Err(failure) => {
            if let Some(sentence) = failure.sentence() {
                say(sentence);
            }
            Ok(1)
        }
    }
}

/// The last part of a path here.
fn file_name(path: &Path) -> Result<String, Failure> {
    let name = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match name.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok(name.to_owned()),
        None => Err(here(path, "its name is not UTF-8, or it has none")),
    }
}

/// What is wrong with a path here.
fn here(path: &Path, why: impl std::fmt::Display) -> Failure {
    // A reason may name a file, too.
    let why = printable(&why.to_string());
    Failure::new(format!("{}: {why}", shown(path)))
}

/// A path here, as a terminal can bear it: files may have any name.
fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// A name for a transfer: the same for the same file to the same place.
fn identity(parts: &[&[u8]]) -> String {
    /// As many letters are enough to tell files apart, and few enough for a file's name.
    const LETTERS: usize = 32;
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let mut text = hex(&hash.finalize());
    text.truncate(LETTERS);
    text
}

/// So many zeros into a digest.
fn hash_zeros(hash: &mut Sha256, mut count: u64) {
    static ZEROS: [u8; PIECE] = [0; PIECE];
    while count > 0 {
        let piece = usize::try_from(count).map_or(PIECE, |count| count.min(PIECE));
        hash.update(&ZEROS[..piece]);
        count -= piece as u64;
    }
}
