//! The values that move by themselves, each with the reason; all others must be equal.

use std::fmt;

use serde_json::Value;

/// How far a level may be from the reference's: half as much, or twice.
const FACTOR: f64 = 2.0;

/// A value that moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moving {
    /// The call that it is an answer to.
    pub(super) call: &'static str,
    /// Where it is in the answer: keys and indices with slashes between, where `*` stands for one or more characters but no slash; or,
    /// within a text, what stands before and behind it, with `…` between.
    pub(super) place: &'static str,
    /// What it may be.
    pub(super) how: How,
    /// Why it moves.
    pub(super) why: &'static str,
}

/// What a moving value may be, given what the reference had before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It only grows: not less than before, and not more than after.
    Grows,
    /// It goes up and down: not less than half of the lower, and not more than twice the higher.
    Wanders,
    /// Nothing can be said but that it is of the same kind and length.
    Alike,
}

/// A text without its moving parts.
#[derive(Debug)]
pub(super) struct TakenOut {
    /// What is left.
    pub(super) rest: String,
    /// The parts and their places, in order.
    pub(super) parts: Vec<(&'static str, Value)>,
}

macro_rules! moving {
    ($($call:ident { $($place:literal $how:ident: $why:expr;)* })*) => {
        /// All of them.
        pub(super) const MOVING: &[Moving] = &[$($(
            Moving { call: stringify!($call), place: $place, how: How::$how, why: $why },
        )*)*];
    };
}

const CPU_TIME: &str = "CPU time passes";
const FREE: &str = "the host's memory is used and freed";
const QEMU: &str = "the memory that QEMU takes of the host";
const PACKETS: &str = "packets pass; on the test driver time does";
const IDLE: &str = "time passes, but the kernel may set it back a little (proc_stat(5))";
const CURSOR: &str = "the console's cursor blinks";

moving! {
    connect_get_all_domain_stats {
        "*/params/cpu.time" Grows: CPU_TIME;
        "*/params/cpu.user" Grows: CPU_TIME;
        "*/params/cpu.system" Grows: CPU_TIME;
        "*/params/vcpu.*.time" Grows: CPU_TIME;
        "*/params/vcpu.*.wait" Grows: CPU_TIME;
        "*/params/vcpu.*.delay" Grows: CPU_TIME;
        "*/params/net.*.rx.*" Grows: PACKETS;
        "*/params/net.*.tx.*" Grows: PACKETS;
        "*/params/balloon.rss" Wanders: QEMU;
    }
    node_get_info {
        "mhz" Wanders: "the host changes its clock";
    }
    node_get_free_memory {
        "" Wanders: FREE;
    }
    node_get_cells_free_memory {
        "*" Wanders: FREE;
    }
    node_get_free_pages {
        "*" Wanders: FREE;
    }
    node_get_memory_stats {
        "free" Wanders: FREE;
        "cached" Wanders: FREE;
        "buffers" Wanders: FREE;
    }
    node_get_cpu_stats {
        "user" Grows: CPU_TIME;
        "kernel" Grows: CPU_TIME;
        "idle" Wanders: IDLE;
        "iowait" Wanders: IDLE;
    }
    connect_domain_xml_to_native {
        "\"mac\":\"…\"" Alike: "the card has no address, and gets one each time";
        "\"fd\":\"…\"" Alike: "the number of a descriptor of the daemon";
    }
    domain_get_info {
        "cpuTime" Grows: CPU_TIME;
    }
    domain_get_vcpus {
        "info/*/cpu_time" Grows: CPU_TIME;
        "info/*/cpu" Alike: "the host's scheduler moves the CPU's thread";
    }
    domain_memory_stats {
        "rss" Wanders: QEMU;
    }
    domain_block_stats {
        "*" Grows: "on the test driver time passes";
    }
    domain_interface_stats {
        "*" Grows: PACKETS;
    }
    domain_screenshot {
        "stream/size" Wanders: CURSOR;
        "stream/sha256" Alike: CURSOR;
    }
    storage_vol_get_xml_desc {
        "<atime>…</atime>" Grows: "reading a volume is noted";
    }
}

/// The entry for a place in the answer to a call.
pub(super) fn find(call: &str, place: &str) -> Option<&'static Moving> {
    MOVING
        .iter()
        .find(|moving| moving.call == call && matches(moving.place, place))
}

/// Whether a place fits a pattern.
fn matches(pattern: &str, place: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == place,
        Some((start, rest)) => place.strip_prefix(start).is_some_and(|place| {
            let end = place.find('/').unwrap_or(place.len());
            (1..=end).any(|skipped| {
                place
                    .get(skipped..)
                    .is_some_and(|place| matches(rest, place))
            })
        }),
    }
}

/// Takes a call's moving parts out of a text.
pub(super) fn take_out(call: &str, text: &str) -> TakenOut {
    let mut taken = TakenOut {
        rest: text.to_owned(),
        parts: Vec::new(),
    };
    for moving in MOVING.iter().filter(|moving| moving.call == call) {
        let Some((start, end)) = moving.place.split_once('…') else {
            continue;
        };
        let text = std::mem::take(&mut taken.rest);
        let mut rest = text.as_str();
        while let Some((before, behind)) = rest.split_once(start) {
            let Some((part, behind)) = behind.split_once(end) else {
                break;
            };
            taken.rest.extend([before, start, end]);
            let part = serde_json::from_str(part).unwrap_or_else(|_| part.into());
            taken.parts.push((moving.place, part));
            rest = behind;
        }
        taken.rest += rest;
    }
    taken
}

// === impl How ===

impl How {
    /// Whether a value is as it may be.
    pub(super) fn allows(self, before: &Value, ours: &Value, after: &Value) -> bool {
        // In floating point large numbers become coarser, but stay in their order.
        let numbers = [before, ours, after].map(Value::as_f64);
        match (self, numbers) {
            (Self::Grows, [Some(before), Some(ours), Some(after)]) => {
                (before..=after).contains(&ours)
            }
            (Self::Wanders, [Some(before), Some(ours), Some(after)]) => {
                ours * FACTOR >= before.min(after) && ours <= before.max(after) * FACTOR
            }
            (Self::Grows | Self::Wanders, _) => false,
            (Self::Alike, _) => alike(before, ours) && alike(ours, after),
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grows => "grows",
            Self::Wanders => "wanders",
            Self::Alike => "alike",
        })
    }
}

/// Whether both are numbers, or texts of one length, or …
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::String(one), Value::String(other)) => one.len() == other.len(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.keys().eq(other.keys())
                && one
                    .values()
                    .zip(other.values())
                    .all(|(one, other)| alike(one, other))
        }
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_star_stands_for_anything_within_a_key() {
        assert!(matches("*/params/vcpu.*.time", "0/params/vcpu.12.time"));
        assert!(matches("*/params/vcpu.*.time", "0/params/vcpu.0.wait.time"));
        assert!(!matches("*/params/vcpu.*.time", "0/1/params/vcpu.0.time"));
        assert!(!matches("cpuTime", "cpuTimes"));
        assert!(!matches("*", ""));
        assert!(matches("", ""));
    }

    #[test]
    fn a_moving_part_is_taken_out_of_its_text() {
        let taken = take_out(
            "storage_vol_get_xml_desc",
            "<a/><atime>1.5</atime><mtime>1</mtime>",
        );
        assert_eq!(taken.rest, "<a/><atime></atime><mtime>1</mtime>");
        assert_eq!(taken.parts, [("<atime>…</atime>", json!(1.5))]);
        let untouched = take_out("storage_vol_get_xml_desc", "<atime>1.5");
        assert_eq!(untouched.rest, "<atime>1.5");
    }

    #[test]
    fn a_counter_that_lies_between_the_two_may_be() {
        let allows = |ours| How::Grows.allows(&json!(5), &ours, &json!(9));
        assert!(allows(json!(5)) && allows(json!(7)) && allows(json!(9)));
        assert!(!allows(json!(4)) && !allows(json!(10)) && !allows(json!("7")));
    }

    #[test]
    fn a_level_far_from_both_may_not_be() {
        let allows = |ours| How::Wanders.allows(&json!(100), &ours, &json!(40));
        assert!(allows(json!(20)) && allows(json!(200)));
        assert!(!allows(json!(19)) && !allows(json!(201)) && !allows(json!(null)));
    }

    #[test]
    fn another_kind_or_length_is_not_alike() {
        let allows = |ours| How::Alike.allows(&json!("ab"), &ours, &json!("cd"));
        assert!(allows(json!("xy")));
        assert!(!allows(json!("xyz")) && !allows(json!(12)));
    }
}
