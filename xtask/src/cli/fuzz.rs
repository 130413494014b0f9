//! `cargo xtask fuzz`: the libvirt client's fuzz targets under libFuzzer, on the stable toolchain.
//!
//! The compiler counts what the code reaches (LLVM's SanitizerCoverage pass), and libFuzzer, which is linked in, keeps
//! the inputs that reach something new. All of it is below `target/fuzz`: programs, the growing corpus, a log for each
//! target, and the inputs that made one fail.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use xtask::limits::{
    FUZZ_INPUT_DEADLINE, FUZZ_INPUT_MAX, FUZZ_MEMORY_MIB, FUZZ_SECONDS, FUZZ_STORY_MAX,
    LOG_TAIL_LINES,
};
use xtask::tools::{self, Scope};
use xtask::{build, command, workspace};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// How long each target runs.
    #[arg(long, default_value_t = FUZZ_SECONDS)]
    seconds: u64,
    /// Only these targets.
    #[arg(value_parser = PossibleValuesParser::new(TARGETS.iter().map(|target| target.name)))]
    targets: Vec<String>,
}

/// A fuzz target: one of the package's binaries.
struct Target {
    name: &'static str,
    /// Folders that it begins with beside its seeds.
    more_seeds: &'static [&'static str],
    /// Words that it tries.
    dictionary: Option<&'static str>,
    /// The bytes of its longest input.
    longest: usize,
}

const TARGETS: &[Target] = &[
    Target {
        name: "decode",
        more_seeds: &[],
        dictionary: None,
        longest: FUZZ_INPUT_MAX,
    },
    Target {
        name: "packets",
        more_seeds: &[],
        dictionary: None,
        longest: FUZZ_STORY_MAX,
    },
    Target {
        name: "parse",
        more_seeds: &["libvirt-rs/proto"],
        dictionary: Some("libvirt-rs/fuzz/parse.dict"),
        longest: FUZZ_INPUT_MAX,
    },
];

const PACKAGE: &str = "libvirt-fuzz";
const PROFILE: &str = "fuzz";
const SEEDS: &str = "libvirt-rs/fuzz/seeds";

/// What nightly's `-Zsanitizer` would ask of LLVM: a counter for each edge, where it is, and what numbers are compared
/// with. Only for the target's own code: build scripts link no libFuzzer.
const RUSTFLAGS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    --cfg fuzzing";

/// Runs the targets one after the other.
pub(super) fn run(options: &Options) -> Result<()> {
    tools::ensure(Scope::Fuzz)?;
    eprintln!("xtask: building the fuzz targets");
    let programs = build()?;
    let wanted = |target: &&Target| {
        options.targets.is_empty() || options.targets.iter().any(|name| name == target.name)
    };
    let mut failed = Vec::new();
    for target in TARGETS.iter().filter(wanted) {
        eprintln!("xtask: fuzzing {} for {} s", target.name, options.seconds);
        if !fuzz(target, &programs.join(target.name), options.seconds)? {
            failed.push(target.name);
        }
    }
    if !failed.is_empty() {
        bail!("fuzzing found mistakes: {}", failed.join(", "));
    }
    Ok(())
}

/// Builds the targets' programs and returns their folder.
fn build() -> Result<PathBuf> {
    let about = command::capture_text(build::cargo_program().arg("-vV"))?;
    let host = about
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("`cargo -vV` names no host")?;
    let mut cargo = build::cargo_program();
    cargo
        .args(["build", "--quiet", "--package", PACKAGE])
        .args(["--bins", "--features", "libfuzzer", "--profile", PROFILE])
        // Named, it gets flags of its own, and build scripts don't get them.
        .args(["--target", host])
        .arg("--target-dir")
        .arg(directory())
        .env("RUSTFLAGS", RUSTFLAGS)
        // It would win over RUSTFLAGS.
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command::run(&mut cargo)?;
    Ok(directory().join(host).join(PROFILE))
}

/// Runs a target and says how it went: whether it has found nothing.
fn fuzz(target: &Target, program: &Path, seconds: u64) -> Result<bool> {
    let corpus = directory().join("corpus").join(target.name);
    let crashes = directory().join("crashes").join(target.name);
    for folder in [&corpus, &crashes] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let log = directory().join(format!("{}.log", target.name));
    let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let status = Command::new(program)
        .args(arguments(target, &crashes, seconds))
        // New inputs go to the first folder.
        .arg(&corpus)
        .arg(Path::new(SEEDS).join(target.name))
        // What has failed before is tried at once.
        .arg(&crashes)
        .args(target.more_seeds)
        .current_dir(workspace::root())
        .stdout(output.try_clone().context("cannot share the log")?)
        .stderr(output)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let said = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    println!("{:8} {}", target.name, summary(&said));
    if status.success() {
        return Ok(true);
    }
    eprintln!("{}\n", complaint(&said));
    match kept(&said) {
        Some(input) => {
            eprintln!("input   {input}");
            eprintln!("replay  {} {input}", program.display());
        }
        // There was no stack left to write it from.
        None => eprintln!("input   none was kept, as when the stack overflows"),
    }
    eprintln!("log     {} ({status})", log.display());
    Ok(false)
}

/// libFuzzer's options.
fn arguments(target: &Target, crashes: &Path, seconds: u64) -> Vec<OsString> {
    let mut prefix = OsString::from("-artifact_prefix=");
    // Without the slash at the end it would be the begin of the files' names.
    prefix.push(crashes.join(""));
    let dictionary = target.dictionary.map(|path| format!("-dict={path}"));
    [
        format!("-max_total_time={seconds}"),
        format!("-max_len={}", target.longest),
        format!("-timeout={}", FUZZ_INPUT_DEADLINE.as_secs()),
        format!("-rss_limit_mb={FUZZ_MEMORY_MIB}"),
        "-print_final_stats=1".to_owned(),
    ]
    .into_iter()
    .chain(dictionary)
    .map(OsString::from)
    .chain([prefix])
    .collect()
}

/// What a run has come to, from libFuzzer's own words.
fn summary(said: &str) -> String {
    let statistic = |name: &str| {
        let lines = said.lines().rev();
        let value = lines
            .filter_map(|line| line.strip_prefix("stat::"))
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map_or("?", str::trim).to_owned()
    };
    // `#1234 DONE cov: 321 ft: 456 …`; the last line of this kind tells.
    let reached = said
        .lines()
        .rev()
        .find_map(|line| line.split_once(" cov: ")?.1.split_whitespace().next());
    let counters = said.lines().find_map(|line| {
        line.split_once(" inline 8-bit counters)")?
            .0
            .rsplit('(')
            .next()
    });
    format!(
        "{} inputs, {} a second, {} of {} edges, {} MiB",
        statistic("number_of_executed_units"),
        statistic("average_exec_per_sec"),
        reached.unwrap_or("?"),
        counters.unwrap_or("?"),
        statistic("peak_rss_mb"),
    )
}

/// What went wrong: the panic's message, or libFuzzer's.
fn complaint(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    let begins = |line: &&str| line.contains(" panicked at ") || line.contains("ERROR: libFuzzer");
    let start = lines.iter().position(begins);
    let lines = &lines[start.unwrap_or(lines.len().saturating_sub(LOG_TAIL_LINES))..];
    lines[..lines.len().min(LOG_TAIL_LINES)].join("\n")
}

/// Where the input that failed was written to.
fn kept(said: &str) -> Option<&str> {
    let mut lines = said.lines().rev();
    lines.find_map(|line| Some(line.split_once("Test unit written to ")?.1.trim()))
}

fn directory() -> PathBuf {
    workspace::target_dir().join("fuzz")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
INFO: Loaded 1 modules   (8491 inline 8-bit counters): 8491 [0x1, 0x2),
#2	INITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 44Mb
thread '<unnamed>' (1) panicked at src/decode/mod.rs:1:2:
one encoding
#99	DONE   cov: 345 ft: 678 corp: 9/90b lim: 4 exec/s: 0 rss: 45Mb
stat::number_of_executed_units: 99
stat::average_exec_per_sec:     33
stat::peak_rss_mb:              45
artifact_prefix='crashes/'; Test unit written to crashes/crash-1
";

    #[test]
    fn a_run_is_summed_up_from_what_libfuzzer_says() {
        assert_eq!(
            summary(SAID),
            "99 inputs, 33 a second, 345 of 8491 edges, 45 MiB"
        );
    }

    #[test]
    fn a_complaint_begins_with_the_panic() {
        assert!(complaint(SAID).starts_with("thread '<unnamed>' (1) panicked at"));
        assert_eq!(complaint("one\ntwo"), "one\ntwo");
    }

    #[test]
    fn the_input_that_failed_is_named_where_it_was_kept() {
        assert_eq!(kept(SAID), Some("crashes/crash-1"));
        assert_eq!(kept("Segmentation fault"), None);
    }
}
