//! Patterns: `*` stands for any number of any characters.

/// Whether `text` is what `pattern` describes.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, mut pattern)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut rest) = text.strip_prefix(head) else {
        return false;
    };
    // What lies between two stars is taken where it comes first: that leaves most for the others.
    while let Some((part, behind)) = pattern.split_once('*') {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
        pattern = behind;
    }
    rest.ends_with(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_anything() {
        for (pattern, text, expected) in [
            ("a.B/C", "a.B/C", true),
            ("a.B/C", "a.B/CD", false),
            ("a.B/*", "a.B/C", true),
            ("*/Get*", "a.B/GetThis", true),
            ("*/Get*", "a.B/ForGet", false),
            ("a*b*c", "abcbc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
