//! A sample for programs. A group that was not asked for is absent.

use serde_json::{Map, Value, json};
use vbridge_api::guest::v1::{CpuTimes, MetricsSample, Pressure, Stall};

use crate::cli::units::{json_seconds, json_time};

/// The sample as an object.
pub(super) fn sample(sample: &MetricsSample) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("time", json_time(sample.time.as_ref()));
    put("uptime_seconds", json_seconds(sample.uptime.as_ref()));
    put("sequence", json!(sample.sequence));
    if let Some(cpu) = &sample.cpu {
        let value = json!({
            "total": cpu.total.as_ref().map(cpu_times),
            "cpus": cpu.cpus.iter().map(cpu_times).collect::<Vec<_>>(),
            "busy_percent": cpu.busy_percent,
            "load_one": cpu.load_one,
            "load_five": cpu.load_five,
            "load_fifteen": cpu.load_fifteen,
            "context_switches": cpu.context_switches,
        });
        put("cpu", value);
    }
    if let Some(memory) = &sample.memory {
        let value = json!({
            "total_bytes": memory.total_bytes,
            "free_bytes": memory.free_bytes,
            "available_bytes": memory.available_bytes,
            "buffers_bytes": memory.buffers_bytes,
            "cached_bytes": memory.cached_bytes,
            "dirty_bytes": memory.dirty_bytes,
            "swap_total_bytes": memory.swap_total_bytes,
            "swap_free_bytes": memory.swap_free_bytes,
        });
        put("memory", value);
    }
    let disks = sample.disks.iter().map(|disk| {
        json!({
            "name": disk.name,
            "reads": disk.reads,
            "read_bytes": disk.read_bytes,
            "writes": disk.writes,
            "written_bytes": disk.written_bytes,
            "busy_seconds": disk.busy_seconds,
            "in_flight": disk.in_flight,
        })
    });
    put_list(&mut fields, "disks", disks.collect());
    let networks = sample.networks.iter().map(|network| {
        json!({
            "name": network.name,
            "received_bytes": network.received_bytes,
            "received_packets": network.received_packets,
            "received_errors": network.received_errors,
            "received_dropped": network.received_dropped,
            "sent_bytes": network.sent_bytes,
            "sent_packets": network.sent_packets,
            "sent_errors": network.sent_errors,
            "sent_dropped": network.sent_dropped,
        })
    });
    put_list(&mut fields, "networks", networks.collect());
    if let Some(all) = &sample.pressure {
        let value = json!({
            "cpu": all.cpu.as_ref().map(pressure),
            "memory": all.memory.as_ref().map(pressure),
            "io": all.io.as_ref().map(pressure),
        });
        fields.insert("pressure".to_owned(), value);
    }
    if let Some(processes) = &sample.processes {
        let value = json!({
            "tasks": processes.tasks,
            "running": processes.running,
            "blocked": processes.blocked,
            "started": processes.started,
        });
        fields.insert("processes".to_owned(), value);
    }
    Value::Object(fields)
}

fn put_list(fields: &mut Map<String, Value>, name: &str, list: Vec<Value>) {
    if !list.is_empty() {
        fields.insert(name.to_owned(), Value::Array(list));
    }
}

fn cpu_times(times: &CpuTimes) -> Value {
    json!({
        "name": times.name,
        "user_seconds": times.user,
        "nice_seconds": times.nice,
        "system_seconds": times.system,
        "idle_seconds": times.idle,
        "iowait_seconds": times.iowait,
        "irq_seconds": times.irq,
        "softirq_seconds": times.softirq,
        "steal_seconds": times.steal,
    })
}

fn pressure(pressure: &Pressure) -> Value {
    json!({
        "some": pressure.some.as_ref().map(stall),
        "full": pressure.full.as_ref().map(stall),
    })
}

fn stall(stall: &Stall) -> Value {
    json!({
        "avg10_percent": stall.avg10_percent,
        "avg60_percent": stall.avg60_percent,
        "avg300_percent": stall.avg300_percent,
        "total_seconds": stall.total_seconds,
    })
}

#[cfg(test)]
mod tests {
    use vbridge_api::guest::v1::{CpuMetrics, DiskMetrics, MemoryMetrics};

    use super::*;

    #[test]
    fn a_group_that_was_not_asked_for_is_absent() {
        let memory = MemoryMetrics {
            total_bytes: 480 << 20,
            ..MemoryMetrics::default()
        };
        let value = sample(&MetricsSample {
            memory: Some(memory),
            ..MetricsSample::default()
        });
        assert_eq!(value["memory"]["total_bytes"], 503_316_480);
        for absent in ["cpu", "disks", "networks", "pressure", "processes"] {
            assert!(value.get(absent).is_none(), "{value}");
        }
    }

    #[test]
    fn what_is_not_known_is_null_and_numbers_that_json_lacks_do_no_harm() {
        let cpu = CpuMetrics {
            load_one: f64::NAN,
            ..CpuMetrics::default()
        };
        let disk = DiskMetrics {
            name: "vda\u{1b}".into(),
            ..DiskMetrics::default()
        };
        let value = sample(&MetricsSample {
            cpu: Some(cpu),
            disks: vec![disk],
            ..MetricsSample::default()
        });
        assert!(value["cpu"]["busy_percent"].is_null());
        assert!(value["cpu"]["load_one"].is_null());
        assert!(!value.to_string().contains('\u{1b}'));
    }
}
