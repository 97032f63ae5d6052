//! The effective configuration as commented YAML, which reads back to the same configuration.

/// A key, what it means, and its effective value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// What it means: sentences.
    pub doc: String,
    /// Its value.
    pub body: Body,
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A scalar or a list of scalars, as YAML on one line.
    Value(String),
    /// A mapping.
    Section(Vec<Entry>),
    /// A list of mappings, and what one looks like if there are none.
    Items {
        /// The mappings.
        items: Vec<Vec<Entry>>,
        /// An example, shown as a comment.
        example: Vec<Entry>,
    },
}

/// Column at which comments wrap.
const WIDTH: usize = 100;

/// The configuration as a commented file.
#[must_use]
pub fn yaml(entries: &[Entry]) -> String {
    let mut out = String::new();
    for entry in entries {
        if !out.is_empty() {
            out.push('\n');
        }
        write(&mut out, entry, 0, true);
    }
    out
}

fn write(out: &mut String, entry: &Entry, indent: usize, comments: bool) {
    let pad = " ".repeat(indent);
    if comments {
        comment(out, &entry.doc, &pad);
    }
    let key = crate::config::word::quote(&entry.key);
    match &entry.body {
        Body::Value(value) => line(out, &pad, &[&key, ": ", value]),
        Body::Section(entries) if entries.is_empty() => line(out, &pad, &[&key, ": {}"]),
        Body::Section(entries) => {
            line(out, &pad, &[&key, ":"]);
            for entry in entries {
                write(out, entry, indent + 2, comments);
            }
        }
        Body::Items { items, example } if items.is_empty() => {
            line(out, &pad, &[&key, ": []"]);
            let mut text = String::new();
            item(&mut text, example, 0, true);
            for example in text.lines() {
                line(out, &pad, &["#  ", example]);
            }
        }
        Body::Items { items, .. } => {
            line(out, &pad, &[&key, ":"]);
            for (index, entries) in items.iter().enumerate() {
                item(out, entries, indent + 2, comments && index == 0);
            }
        }
    }
}

/// One mapping of a list: its first key stands behind the dash.
fn item(out: &mut String, entries: &[Entry], indent: usize, comments: bool) {
    let mut text = String::new();
    for (index, entry) in entries.iter().enumerate() {
        // The first comment stands before the dash.
        if index == 0 && comments {
            comment(out, &entry.doc, &" ".repeat(indent));
        }
        write(&mut text, entry, indent + 2, comments && index > 0);
    }
    let (pad, rest) = text.split_at_checked(indent).unwrap_or(("", &text));
    out.push_str(pad);
    out.push_str("- ");
    out.push_str(rest.strip_prefix("  ").unwrap_or(rest));
}

fn line(out: &mut String, pad: &str, parts: &[&str]) {
    out.push_str(pad);
    for part in parts {
        out.push_str(part);
    }
    out.push('\n');
}

fn comment(out: &mut String, doc: &str, pad: &str) {
    let mut row = String::new();
    for word in doc.split_whitespace() {
        if !row.is_empty() && pad.len() + row.len() + word.len() + 3 > WIDTH {
            line(out, pad, &["#", &row]);
            row.clear();
        }
        row.push(' ');
        row.push_str(word);
    }
    if !row.is_empty() {
        line(out, pad, &["#", &row]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, body: Body) -> Entry {
        Entry { key: key.into(), doc: format!("About {key}."), body }
    }

    #[test]
    fn writes_comments_sections_and_lists() {
        let pair = || vec![entry("x", Body::Value("1".into())), entry("z", Body::Value("[a, b]".into()))];
        let entries = [
            entry("one", Body::Section(vec![entry("two", Body::Value("2".into()))])),
            entry("many", Body::Items { items: vec![pair(), pair()], example: Vec::new() }),
            entry("none", Body::Items { items: Vec::new(), example: pair() }),
        ];
        let expected = "# About one.\none:\n  # About two.\n  two: 2\n\n\
            # About many.\nmany:\n  # About x.\n  - x: 1\n    # About z.\n    z: [a, b]\n  - x: 1\n    z: [a, b]\n\n\
            # About none.\nnone: []\n#  # About x.\n#  - x: 1\n#    # About z.\n#    z: [a, b]\n";
        assert_eq!(yaml(&entries), expected);
    }

    #[test]
    fn wraps_long_comments() {
        let long = Entry { doc: "word ".repeat(60), ..entry("k", Body::Value("1".into())) };
        assert!(yaml(&[long]).lines().all(|line| line.len() <= WIDTH));
    }
}
