//! `/proc/pressure/*`: pressure stall information.

use std::time::Duration;

use vbridge_api::guest::v1::{Pressure, PressureMetrics, Stall};

use super::{Reader, number};

/// Reads all of it; `None` where the kernel has none (before 4.20, or switched off).
pub(crate) fn read(reader: &mut Reader) -> Option<PressureMetrics> {
    let metrics = PressureMetrics {
        cpu: read_one(reader, "proc/pressure/cpu"),
        memory: read_one(reader, "proc/pressure/memory"),
        io: read_one(reader, "proc/pressure/io"),
    };
    (metrics != PressureMetrics::default()).then_some(metrics)
}

fn read_one(reader: &mut Reader, path: &str) -> Option<Pressure> {
    Some(parse(&reader.read(path).ok()?))
}

pub(super) fn parse(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("some", values)) => pressure.some = Some(stall(values)),
            Some(("full", values)) => pressure.full = Some(stall(values)),
            _ => {}
        }
    }
    pressure
}

fn stall(values: &str) -> Stall {
    let mut stall = Stall::default();
    for (key, value) in values
        .split_ascii_whitespace()
        .filter_map(|pair| pair.split_once('='))
    {
        match key {
            "avg10" => stall.avg10_percent = number(value),
            "avg60" => stall.avg60_percent = number(value),
            "avg300" => stall.avg300_percent = number(value),
            "total" => stall.total_seconds = Duration::from_micros(number(value)).as_secs_f64(),
            _ => {}
        }
    }
    stall
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_and_full_may_be_absent() {
        let both = parse(
            "some avg10=1.50 avg60=0.25 avg300=0.10 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
        );
        let some = both.some.unwrap();
        assert_eq!(
            (some.avg10_percent, some.avg60_percent, some.avg300_percent),
            (1.5, 0.25, 0.1)
        );
        assert!((some.total_seconds - 2.5).abs() < 1e-9);
        assert!(both.full.is_some());
        assert_eq!(
            parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n").full,
            None
        );
    }

    #[test]
    fn a_kernel_without_pressure_information_gives_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&mut Reader::below(dir.path())), None);
        std::fs::create_dir_all(dir.path().join("proc/pressure")).unwrap();
        std::fs::write(
            dir.path().join("proc/pressure/io"),
            "some avg10=0.00 total=1",
        )
        .unwrap();
        let metrics = read(&mut Reader::below(dir.path())).unwrap();
        assert!(metrics.io.is_some() && metrics.cpu.is_none());
    }
}
