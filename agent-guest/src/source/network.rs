//! `/proc/net/dev`.

use vbridge_api::guest::v1::NetworkMetrics;

use crate::limits::MAX_NETWORKS;

/// Reads `/proc/net/dev`.
pub(crate) fn parse(text: &str) -> Vec<NetworkMetrics> {
    text.lines()
        .filter_map(parse_line)
        .take(MAX_NETWORKS)
        .collect()
}

fn parse_line(line: &str) -> Option<NetworkMetrics> {
    // The last colon: an alias has one in its name. Old kernels put no space after it.
    let (name, counters) = line.rsplit_once(':')?;
    let mut fields = counters.split_ascii_whitespace();
    let mut values = [0_u64; 16];
    for value in &mut values {
        *value = fields.next()?.parse().ok()?;
    }
    Some(NetworkMetrics {
        name: name.trim().to_owned(),
        received_bytes: values[0],
        received_packets: values[1],
        received_errors: values[2],
        received_dropped: values[3],
        sent_bytes: values[8],
        sent_packets: values[9],
        sent_errors: values[10],
        sent_dropped: values[11],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_and_headings_are_not() {
        let networks = parse(
            "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
             lo:   81856     812    1    2    0     0          0         0    81857     813    3    4    0     0       0          0\n\
             eth0:1296 10 0 0 0 0 0 0 90 1 0 0 0 0 0 0\n\
             eth0:1: 7 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0\n\
             torn: 1 2\n",
        );
        let names: Vec<_> = networks
            .iter()
            .map(|network| network.name.as_str())
            .collect();
        assert_eq!(names, ["lo", "eth0", "eth0:1"]);
        let lo = &networks[0];
        assert_eq!(
            (
                lo.received_bytes,
                lo.received_packets,
                lo.received_errors,
                lo.received_dropped
            ),
            (81_856, 812, 1, 2)
        );
        assert_eq!(
            (
                lo.sent_bytes,
                lo.sent_packets,
                lo.sent_errors,
                lo.sent_dropped
            ),
            (81_857, 813, 3, 4)
        );
        assert_eq!(networks[1].received_bytes, 1296, "no space after the colon");
    }
}
