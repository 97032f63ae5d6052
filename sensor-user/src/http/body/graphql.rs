//! The operation of a GraphQL request (GraphQL specification, October 2021, section 2.3): `query Orders`, `mutation`.
//!
//! Only the outermost level of a document is read; what stands in braces, parentheses, strings and comments is passed
//! over. A batch is named by its first operation and how many follow: `query Orders +2`. A request that names its
//! document by a hash is `persisted Orders`. Queries of URLs hold the same members as JSON does (GraphQL over
//! HTTP, section 6.2).

use std::fmt::Write;

use super::MAX_BODY;
use super::form;
use super::scan::{self, Scalar, unescaped};

/// Longest operation name that is kept.
const MAX_NAME: usize = 64;

/// The operation of a body; `bare` if the body is a document by itself and not JSON.
pub(super) fn operation(text: &[u8], bare: bool) -> Option<Box<str>> {
    if bare {
        return in_document(text, None).map(String::into_boxed_str);
    }
    let (mut document, mut name, mut persisted) = (None, None, false);
    let elements = scan::walk(text, &mut |place, scalar| {
        let Scalar::Text { raw, whole } = scalar else { return };
        if place.element > 0 {
            return;
        }
        match (place.outer, place.name) {
            (None, "query") => document = Some(unescaped(raw)),
            (None, "operationName") if whole => name = is_name(raw).then(|| raw.to_vec()),
            (None, "id" | "documentId") => persisted = true,
            _ => {}
        }
    });
    let found = match document {
        Some(document) => in_document(&document, name.as_deref()),
        None if persisted || name.is_some() => Some(titled("persisted", name.as_deref())),
        None => None,
    };
    let mut found = found?;
    if elements > 1 {
        // Writing to a string does not fail.
        let _ = write!(found, " +{}", elements - 1);
    }
    Some(found.into_boxed_str())
}

/// The operation that the query of a URL names. Of a name that comes twice the last counts, as in JSON.
pub(super) fn in_query(query: &[u8]) -> Option<Box<str>> {
    let (mut document, mut name, mut persisted) = (None, None, false);
    for (key, value) in form::pairs(query) {
        match key.as_slice() {
            // A cut may split an escape, which then stands at the end and names nothing.
            b"query" => document = Some(form::decoded(value.get(..MAX_BODY).unwrap_or(value))),
            b"operationName" => name = Some(form::decoded(value)).filter(|name| is_name(name)),
            b"id" | b"documentId" | b"extensions" => persisted |= !value.is_empty(),
            _ => {}
        }
    }
    let name = name.as_ref().map(|name| name.as_slice());
    let found = match document.filter(|document| !document.is_empty()) {
        Some(document) => in_document(&document, name),
        None if persisted || name.is_some() => Some(titled("persisted", name)),
        None => None,
    };
    found.map(String::into_boxed_str)
}

fn is_name(text: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

fn titled(kind: &str, name: Option<&[u8]>) -> String {
    match name.and_then(|name| std::str::from_utf8(name).ok()) {
        Some(name) => format!("{kind} {name}"),
        None => kind.to_owned(),
    }
}

/// The definition that is asked for: the one of that name, else the first.
fn in_document(text: &[u8], wanted: Option<&[u8]>) -> Option<String> {
    let mut first = None;
    let mut words = Outermost { text, at: 0 };
    while let Some(word) = words.next_word() {
        let kind = match word {
            b"{" | b"query" => "query",
            b"mutation" => "mutation",
            b"subscription" => "subscription",
            b"fragment" => {
                words.skip_to_selection();
                words.skip_selection(false);
                continue;
            }
            _ => continue,
        };
        let opened = word == b"{";
        let name = if opened { None } else { words.name() };
        if !opened {
            words.skip_to_selection();
        }
        words.skip_selection(opened);
        if wanted.is_some() && name == wanted {
            return Some(titled(kind, name));
        }
        first.get_or_insert_with(|| titled(kind, name));
    }
    first
}

/// The words and brackets of a document, comments and commas left out.
struct Outermost<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Outermost<'a> {
    /// The next word, or one byte of anything else.
    fn next_word(&mut self) -> Option<&'a [u8]> {
        loop {
            match self.text.get(self.at)? {
                b'#' => self.at += self.line(),
                b'"' => self.at += self.quoted(),
                b if b.is_ascii_whitespace() || *b == b',' => self.at += 1,
                _ => break,
            }
        }
        let rest = self.text.get(self.at..)?;
        let word = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count().max(1);
        self.at += word;
        rest.get(..word)
    }

    /// The name that may follow an operation's kind.
    fn name(&mut self) -> Option<&'a [u8]> {
        let before = self.at;
        let word = self.next_word()?;
        if is_name(word) {
            return Some(word);
        }
        self.at = before;
        None
    }

    /// How far the comment, string or sign goes that begins with this byte.
    fn length(&self, byte: u8) -> usize {
        match byte {
            b'#' => self.line(),
            b'"' => self.quoted(),
            _ => 1,
        }
    }

    /// Goes on behind the `{` of a selection set; variables and directives are passed over with their parentheses.
    fn skip_to_selection(&mut self) {
        let mut parentheses = 0_u32;
        while let Some(byte) = self.text.get(self.at) {
            self.at += self.length(*byte);
            match byte {
                b'(' => parentheses += 1,
                b')' => parentheses = parentheses.saturating_sub(1),
                b'{' if parentheses == 0 => {
                    self.at -= 1;
                    return;
                }
                _ => {}
            }
        }
    }

    /// Passes over braces and all between them; `opened` if the first was taken already.
    fn skip_selection(&mut self, opened: bool) {
        let mut depth = u32::from(opened);
        while let Some(byte) = self.text.get(self.at) {
            self.at += self.length(*byte);
            match byte {
                b'{' => depth += 1,
                b'}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return;
                    }
                }
                _ => {}
            }
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Length of the comment that begins here.
    fn line(&self) -> usize {
        memchr::memchr2(b'\n', b'\r', self.rest()).unwrap_or(self.rest().len()).max(1)
    }

    /// Length of the string, or block string, that begins here.
    fn quoted(&self) -> usize {
        let rest = self.rest();
        if let Some(block) = rest.strip_prefix(b"\"\"\"") {
            return memchr::memmem::find(block, b"\"\"\"").map_or(rest.len(), |end| end + 6);
        }
        let mut at = 1;
        while let Some(byte) = rest.get(at) {
            match byte {
                b'"' => return at + 1,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        rest.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(query: &str, name: Option<&str>) -> Option<Box<str>> {
        let body = serde_json::json!({"query": query, "operationName": name, "variables": {"query": "no"}});
        operation(body.to_string().as_bytes(), false)
    }

    #[test]
    fn names_the_operation() {
        for (query, name, found) in [
            ("query Orders { orders { id } }", None, "query Orders"),
            ("{ me { name } }", None, "query"),
            ("mutation($a: In = {x: \"}\"}) { do(a: $a) }", None, "mutation"),
            ("# mutation No\nsubscription S @live(if: {a: 1}) { x }", None, "subscription S"),
            ("fragment F on mutation { id } query Q { ...F }", None, "query Q"),
            ("query A { a } mutation B { b }", Some("B"), "mutation B"),
            ("query A { a } mutation B { b }", Some("C"), "query A"),
            (
                "query A { a(s: \"} mutation X {\", b: \"\"\" } \" mutation Y { \"\"\") } mutation B { b }",
                Some("B"),
                "mutation B",
            ),
            ("{ query } mutation M { m }", Some("M"), "mutation M"),
            ("query A { a", None, "query A"),
        ] {
            assert_eq!(json(query, name).as_deref(), Some(found), "{query}");
        }
        assert_eq!(json("", None), None);
        assert_eq!(operation(b"mutation Pay { pay }", true).as_deref(), Some("mutation Pay"));
    }

    #[test]
    fn batches_and_persisted_documents_have_names() {
        let batch = br#"[{"query":"query A { a }"},{"query":"mutation B { b }"},{"query":"{ c }"}]"#;
        assert_eq!(operation(batch, false).as_deref(), Some("query A +2"));
        let persisted = br#"{"operationName":"Orders","extensions":{"persistedQuery":{"sha256Hash":"x"}}}"#;
        assert_eq!(operation(persisted, false).as_deref(), Some("persisted Orders"));
        assert_eq!(operation(br#"{"id":"9f2c"}"#, false).as_deref(), Some("persisted"));
        assert_eq!(operation(br#"{"a":"b"}"#, false), None);
    }

    #[test]
    fn queries_of_urls_name_operations() {
        for (query, found) in [
            ("query=query+Orders%7Borders%7Bid%7D%7D", Some("query Orders")),
            ("query={me{name}}&variables={}", Some("query")),
            (
                "variables=%7B%22query%22:1%7D&query=query%20A%7Ba%7D%20mutation%20B%7Bb%7D&operationName=B",
                Some("mutation B"),
            ),
            ("%71uery=mutation%20M%7Bm%7D", Some("mutation M")),
            ("query={a}&query=mutation M{m}", Some("mutation M")),
            ("operationName=Orders&extensions=%7B%22persistedQuery%22%3A%7B%7D%7D", Some("persisted Orders")),
            ("id=9f2c", Some("persisted")),
            ("operationName=%3Cscript%3E&query=", None),
            ("q=query", None),
            ("page=2", None),
        ] {
            assert_eq!(in_query(query.as_bytes()).as_deref(), found, "{query}");
        }
        let long = format!("query=query+Big{{{}}}", "%20".repeat(60_000));
        assert_eq!(in_query(long.as_bytes()).as_deref(), Some("query Big"));
    }

    #[test]
    fn a_cut_query_still_has_its_name() {
        assert_eq!(operation(br#"{"query":"query Big($x: I) { a b"#, false).as_deref(), Some("query Big"));
    }

    proptest! {
        #[test]
        fn any_query_is_survived_and_its_operation_short(text in "(query=|operationName=|&|%7B|%|[a-z{}()+=#\"])+") {
            let found = in_query(text.as_bytes());
            prop_assert!(found.is_none_or(|found| found.len() <= 128 && found.is_ascii()));
        }

        #[test]
        fn any_document_is_survived_and_its_name_short(text in "(query|mutation|fragment|[a-z{}()\"#\\\\\n ,]){0,60}") {
            let found = operation(text.as_bytes(), true);
            prop_assert!(found.is_none_or(|found| found.len() <= 128 && found.is_ascii()));
        }
    }
}
