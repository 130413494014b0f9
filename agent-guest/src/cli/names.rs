//! The known name that somebody may have meant.

/// The nearest of `known` names: the one with the fewest letters inserted, removed, replaced or swapped.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> &'a str {
    let name = name.to_ascii_lowercase().replace('-', "_");
    known
        .iter()
        .copied()
        .min_by_key(|known| distance(&name, known))
        .unwrap_or_default()
}

fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
                let best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let is_swap =
                    i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
                if is_swap {
                    best.min(rows[i - 2][j - 2] + 1)
                } else {
                    best
                }
            };
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_every_kind_lead_to_the_name() {
        let known = ["channel", "port", "wait", "listen", "key_file", "log"];
        for (slip, name) in [
            ("chanel", "channel"),
            ("prot", "port"),
            ("key-file", "key_file"),
            ("LISTEN", "listen"),
            ("keyfile", "key_file"),
            ("logs", "log"),
        ] {
            assert_eq!(nearest(slip, &known), name);
        }
    }
}
