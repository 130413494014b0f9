//! The known key that a misspelt one is most likely meant to be.

use crate::limits::MAX_NAME;

/// What to say of a key that is not among the `known` ones: the nearest, or all if none is near.
pub fn unknown_key(key: &str, known: &[&str]) -> String {
    let advice = match nearest(key, known) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("the keys here are {}", known.join(", ")),
    };
    format!("unknown key `{}`: {advice}", key.escape_debug())
}

/// The one with the fewest letters inserted, removed, replaced or swapped, if these are at most a third.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let key: String = key.chars().take(MAX_NAME).collect();
    let key = key.to_ascii_lowercase().replace('-', "_");
    known
        .iter()
        .map(|known| (strsim::osa_distance(&key, known), *known))
        .filter(|(changes, known)| *changes <= known.len().div_ceil(3))
        .min_by_key(|(changes, _)| *changes)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 6] = ["channel", "port", "wait", "listen", "key_file", "log"];

    #[test]
    fn slips_of_every_kind_lead_to_the_name() {
        for (slip, name) in [
            ("chanel", "channel"),
            ("prot", "port"),
            ("key-file", "key_file"),
            ("LISTEN", "listen"),
            ("keyfile", "key_file"),
            ("logs", "log"),
        ] {
            assert_eq!(nearest(slip, &KNOWN), Some(name));
        }
    }

    #[test]
    fn another_word_is_no_slip() {
        for word in ["colour", "", "x", &"log".repeat(1000)] {
            assert_eq!(nearest(word, &KNOWN), None, "{word}");
        }
    }

    #[test]
    fn an_unknown_key_gets_the_nearest_or_all() {
        let known = ["listen", "guest", "log"];
        assert_eq!(
            unknown_key("lisen", &known),
            "unknown key `lisen`: did you mean `listen`?"
        );
        assert_eq!(
            unknown_key("colour\u{1b}", &known),
            "unknown key `colour\\u{1b}`: the keys here are listen, guest, log"
        );
    }
}
