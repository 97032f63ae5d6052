//! Where in the file a part of a scalar is. YAML folds lines, strips indents and resolves escapes; the reader keeps only
//! where a scalar begins.

use crate::config::Span;
use crate::config::user::lex::Place;
use crate::config::yaml::Node;

/// The place in the file of a part of a scalar's text; the whole scalar, where it cannot be told.
#[must_use]
pub fn locate(source: &str, node: &Node, text: &str, part: &Place) -> Span {
    find(source, node, text, part).unwrap_or(node.span)
}

/// Walks through the lines of the file and the text together, over what both have in common.
fn find(source: &str, node: &Node, text: &str, part: &Place) -> Option<Span> {
    let mut cursor = 0;
    for (index, line) in source.lines().enumerate().skip(node.span.line.checked_sub(1)?) {
        let from = if index + 1 == node.span.line { node.span.column.saturating_sub(1) } else { 0 };
        let at = line.char_indices().nth(from).map_or(line.len(), |(at, _)| at);
        let rest = line.get(at..)?;
        let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\'' || c == '"');
        // The header of a block scalar.
        if index + 1 == node.span.line && rest.starts_with(['|', '>']) {
            continue;
        }
        let missing = text.get(cursor..)?;
        cursor += missing.len() - missing.trim_start().len();
        let missing = text.get(cursor..)?;
        let same: usize =
            missing.chars().zip(rest.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        if part.start < cursor + same || (part.start == text.len() && part.start == cursor + same) {
            let inside = part.start.checked_sub(cursor)?;
            let before = line.len() - rest.len() + inside;
            let column = line.get(..before)?.chars().count() + 1;
            let end = part.end.min(cursor + same).max(part.start);
            let width = text.get(part.start..end)?.chars().count().max(1);
            return Some(Span { line: index + 1, column, width, ..node.span });
        }
        cursor += same;
        if same == 0 && !rest.is_empty() {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::{Value, parse};

    /// The text of the file at the place of the word.
    fn found(source: &str, word: &str) -> (usize, String) {
        let root = parse(source, 0, &mut Vec::new()).unwrap();
        let Value::Map(entries) = root.value else { panic!() };
        let node = &entries[0].1;
        let Value::Scalar(text) = &node.value else { panic!() };
        let at = text.find(word).unwrap();
        let span = locate(source, node, text, &(at..at + word.len()));
        let line = source.lines().nth(span.line - 1).unwrap();
        (span.line, line.chars().skip(span.column - 1).take(span.width).collect())
    }

    #[test]
    fn finds_words_in_every_style_of_scalar() {
        for source in [
            "when: a == 1 && wrong\n",
            "when: 'a == 1 && wrong'\n",
            "when: \"a == 1 && wrong\"\n",
            "when: |\n  a == 1\n  && wrong\n",
            "when: >-\n  a == 1\n  && wrong\n",
            "when: a == 1\n  && wrong\n",
            "when: |\n  a == 1\n\n    && wrong # é\n",
        ] {
            let line = source.lines().position(|line| line.contains("wrong")).unwrap() + 1;
            assert_eq!(found(source, "wrong"), (line, "wrong".to_owned()), "{source:?}");
        }
    }

    #[test]
    fn names_the_scalar_where_escapes_move_things() {
        let (line, shown) = found("when: \"\\u0061 == 1 && wrong\"\n", "wrong");
        assert_eq!((line, shown.starts_with('"')), (1, true));
    }
}
