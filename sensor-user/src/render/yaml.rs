//! Events as YAML documents: block mappings with JSON strings, which every YAML 1.2 reader takes.

use std::fmt::Write as _;

use serde_json::Value;

/// Appends one document.
pub fn document(event: &Value, out: &mut String) {
    out.push_str("---\n");
    node(event, 0, out);
}

fn node(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                indent(depth, out);
                let _ = write!(out, "{}:", key(name));
                child(member, depth, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                indent(depth, out);
                out.push('-');
                child(item, depth, out);
            }
        }
        _ => child(value, depth, out),
    }
}

fn child(value: &Value, depth: usize, out: &mut String) {
    let nested = match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        node(value, depth + 1, out);
    } else {
        let _ = writeln!(out, " {value}");
    }
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Plain where that is safe, quoted otherwise.
fn key(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !matches!(name, "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null");
    if plain { name.to_owned() } else { Value::from(name).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nests_maps_and_lists() {
        let mut out = String::new();
        document(&json!({"a": 1, "b": {"c": ["x: y", {"d": null}], "e": []}, "no": "n"}), &mut out);
        let expected = "---\na: 1\nb:\n  c:\n    - \"x: y\"\n    -\n      d: null\n  e: []\n\"no\": \"n\"\n";
        assert_eq!(out, expected);
    }
}
