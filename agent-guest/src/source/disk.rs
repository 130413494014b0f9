//! `/proc/diskstats`.

use vbridge_api::guest::v1::DiskMetrics;

use crate::limits::MAX_DISKS;

/// The unit of the kernel's counters, whatever a disk's own sectors are.
const SECTOR: u64 = 512;

/// Reads `/proc/diskstats`: disks and partitions. Loop devices and RAM disks that were never used are left out; a
/// kernel makes a row of them at boot.
pub(crate) fn parse(text: &str) -> Vec<DiskMetrics> {
    text.lines()
        .filter_map(parse_line)
        .take(MAX_DISKS)
        .collect()
}

fn parse_line(line: &str) -> Option<DiskMetrics> {
    let mut fields = line.split_ascii_whitespace().skip(2);
    let name = fields.next()?;
    // The eleven fields that every kernel since 2.6.25 has, of disks and partitions alike.
    let mut values = [0_u64; 11];
    for value in &mut values {
        *value = fields.next()?.parse().ok()?;
    }
    let [
        reads,
        _,
        sectors_read,
        _,
        writes,
        _,
        sectors_written,
        _,
        in_flight,
        busy_ms,
        _,
    ] = values;
    if reads == 0 && writes == 0 && (name.starts_with("loop") || name.starts_with("ram")) {
        return None;
    }
    Some(DiskMetrics {
        name: name.to_owned(),
        reads,
        read_bytes: sectors_read.saturating_mul(SECTOR),
        writes,
        written_bytes: sectors_written.saturating_mul(SECTOR),
        busy_seconds: std::time::Duration::from_millis(busy_ms).as_secs_f64(),
        in_flight,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_and_partitions_are_read_and_unused_loops_are_not() {
        let disks = parse(
            "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n\
             \x20  7       1 loop1 5 0 40 1 0 0 0 0 0 1 1\n\
             \x20254       0 vda 11132 3340 808358 4004 8302 6220 600000 9000 3 12345 13004 0 0 0 0 7 9\n\
             \x20254       1 vda1 100 0 800 4 0 0 0 0 0 4 4\n\
             \x20  8       2 short 1 2 3\n",
        );
        let names: Vec<_> = disks.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["loop1", "vda", "vda1"]);
        let vda = &disks[1];
        assert_eq!((vda.reads, vda.writes, vda.in_flight), (11_132, 8302, 3));
        assert_eq!(
            (vda.read_bytes, vda.written_bytes),
            (808_358 * 512, 600_000 * 512)
        );
        assert!((vda.busy_seconds - 12.345).abs() < 1e-9);
    }

    #[test]
    fn no_more_disks_are_kept_than_promised() {
        let text: String = (0..400)
            .map(|disk| format!("8 {disk} sd{disk} 1 1 1 1 1 1 1 1 1 1 1\n"))
            .collect();
        assert_eq!(parse(&text).len(), MAX_DISKS);
    }
}
