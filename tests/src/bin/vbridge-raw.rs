//! The guest's part of measurements on the bare channel, without a protocol.
//!
//! ```text
//! vbridge-raw PORT echo        returns each read's bytes
//! vbridge-raw PORT sink N      takes N bytes, then answers with the count, eight octets, least significant first
//! vbridge-raw PORT source N    sends N bytes
//! ```
//!
//! It reads and writes blockingly, in blocks of 64 KiB, as `dd bs=64k` would. `sink` and `source` end when they are
//! done; `echo` when it is killed.

use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    process::ExitCode,
    thread,
    time::Duration,
};

/// What is read or written at once, at most.
const BLOCK: usize = 64 * 1024;

/// Between two looks whether a host is there: a port without one reads 0, and does not block.
const RETRY: Duration = Duration::from_millis(1);

const USAGE: &str = "usage: vbridge-raw PORT echo | sink N | source N";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vbridge-raw: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), String> {
    let (path, work): (_, fn(&mut File, u64) -> io::Result<()>) = match arguments {
        [path, "echo"] => (path, |port, _| echo(port)),
        [path, "sink", _] => (path, sink),
        [path, "source", _] => (path, source),
        _ => return Err(USAGE.to_owned()),
    };
    let count = match arguments.get(2) {
        Some(count) => count
            .parse()
            .map_err(|_| format!("{count:?} is no number of bytes; {USAGE}"))?,
        None => 0,
    };
    let mut port = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| format!("can't open {path}: {error}"))?;
    work(&mut port, count).map_err(|error| format!("{path}: {error}"))
}

fn echo(port: &mut File) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        let len = read(port, &mut block)?;
        write(port, &block[..len])?;
    }
}

fn sink(port: &mut File, count: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut taken = 0;
    while taken < count {
        taken += read(port, &mut block)? as u64;
    }
    write(port, &taken.to_le_bytes())
}

fn source(port: &mut File, count: u64) -> io::Result<()> {
    let block = vec![0xa5; BLOCK];
    let mut left = count;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        write(port, &block[..len])?;
        left -= len as u64;
    }
    Ok(())
}

/// Reads at least one byte.
fn read(port: &mut File, block: &mut [u8]) -> io::Result<usize> {
    loop {
        match port.read(block) {
            Ok(0) => thread::sleep(RETRY),
            Ok(len) => return Ok(len),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes all. The driver may take nothing and say so with 0: that is no error here.
fn write(port: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match port.write(bytes) {
            Ok(0) => thread::sleep(RETRY),
            Ok(len) => bytes = &bytes[len..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
