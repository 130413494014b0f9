//! `/proc/meminfo`, in bytes.

use vbridge_api::guest::v1::{MemoryMetrics, MemoryStatus};

use super::number;

/// Reads `/proc/meminfo`.
pub(crate) fn parse(text: &str) -> MemoryMetrics {
    let mut memory = MemoryMetrics::default();
    let mut available = None;
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        // "kB" means 1,024 bytes here. Lines without a unit count pages of other kinds, none of which is asked for.
        let kibibytes = value.split_ascii_whitespace().next().map(number::<u64>);
        let bytes = kibibytes.unwrap_or_default().saturating_mul(1024);
        match key {
            "MemTotal" => memory.total_bytes = bytes,
            "MemFree" => memory.free_bytes = bytes,
            "MemAvailable" => available = Some(bytes),
            "Buffers" => memory.buffers_bytes = bytes,
            "Cached" => memory.cached_bytes = bytes,
            "Dirty" => memory.dirty_bytes = bytes,
            "SwapTotal" => memory.swap_total_bytes = bytes,
            "SwapFree" => memory.swap_free_bytes = bytes,
            _ => {}
        }
    }
    // Before Linux 3.14 the kernel did not tell: the usual estimate.
    memory.available_bytes = available.unwrap_or_else(|| {
        let estimate = memory
            .free_bytes
            .saturating_add(memory.buffers_bytes)
            .saturating_add(memory.cached_bytes);
        estimate.min(memory.total_bytes)
    });
    memory
}

/// The same for a person.
pub(crate) fn status(memory: &MemoryMetrics) -> MemoryStatus {
    MemoryStatus {
        total_bytes: memory.total_bytes,
        available_bytes: memory.available_bytes,
        used_bytes: memory.total_bytes.saturating_sub(memory.available_bytes),
        swap_total_bytes: memory.swap_total_bytes,
        swap_used_bytes: memory
            .swap_total_bytes
            .saturating_sub(memory.swap_free_bytes),
    }
}

/// What sysinfo(2) knows without any file: for guests without /proc.
#[allow(
    clippy::useless_conversion,
    reason = "the kernel's long has 32 bits elsewhere"
)]
pub(crate) fn from_sysinfo() -> MemoryMetrics {
    let info = rustix::system::sysinfo();
    let bytes =
        |units: rustix::ffi::c_ulong| u64::from(units).saturating_mul(u64::from(info.mem_unit));
    MemoryMetrics {
        total_bytes: bytes(info.totalram),
        free_bytes: bytes(info.freeram),
        available_bytes: bytes(info.freeram).saturating_add(bytes(info.bufferram)),
        buffers_bytes: bytes(info.bufferram),
        swap_total_bytes: bytes(info.totalswap),
        swap_free_bytes: bytes(info.freeswap),
        ..MemoryMetrics::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        let memory = parse(
            "MemTotal:        2030000 kB\nMemFree:          500000 kB\nMemAvailable:    1500000 kB\n\
             Buffers:           20000 kB\nCached:           900000 kB\nSwapCached:            0 kB\n\
             Dirty:               12 kB\nSwapTotal:       1000000 kB\nSwapFree:         999000 kB\n\
             HugePages_Total:       0\nDirectMap4k:       98304 kB\n",
        );
        assert_eq!(memory.total_bytes, 2_030_000 * 1024);
        assert_eq!(memory.available_bytes, 1_500_000 * 1024);
        assert_eq!(memory.cached_bytes, 900_000 * 1024);
        assert_eq!(memory.dirty_bytes, 12 * 1024);
        let status = status(&memory);
        assert_eq!(status.used_bytes, 530_000 * 1024);
        assert_eq!(status.swap_used_bytes, 1000 * 1024);
    }

    #[test]
    fn available_is_estimated_where_the_kernel_does_not_tell() {
        let memory = parse("MemTotal: 100 kB\nMemFree: 20 kB\nBuffers: 5 kB\nCached: 10 kB\n");
        assert_eq!(memory.available_bytes, 35 * 1024);
    }

    #[test]
    fn nonsense_is_zero() {
        assert_eq!(
            parse("MemTotal: many kB\nMemFree\n: 5\n"),
            MemoryMetrics::default()
        );
    }

    #[test]
    fn sysinfo_agrees_with_meminfo() {
        let Ok(text) = std::fs::read_to_string("/proc/meminfo") else {
            return;
        };
        assert_eq!(from_sysinfo().total_bytes, parse(&text).total_bytes);
    }
}
