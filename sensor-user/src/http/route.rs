//! Routes: paths with what varies between objects replaced by `{id}`, so that requests can be counted together.
//!
//! Percent-encoding stays as it is: two spellings of a path may be two routes to a server. What looks like a token
//! or an address of a person is replaced too, so that a route may be shown anywhere.

/// Longest route in bytes. Longer paths end in [`REST`]: templates are keys of maps that must stay bounded.
const MAX_LEN: usize = 256;

/// Most segments of a route.
const MAX_SEGMENTS: usize = 32;

/// What stands for a segment that names an object by its form.
pub const ID: &str = "{id}";

/// What stands for a segment that was learned to name objects: a word like any other, but one of very many.
pub const NAME: &str = "{name}";

const REST: &str = "{rest}";

/// Appends the template of a path to `out`.
pub fn template(path: &[u8], out: &mut String) {
    template_by(path, out, |_, _, _| false);
}

/// Appends the template of a path to `out`. Words for which `varies` is true become [`NAME`]: it is given the template
/// up to the word, with its slash, the word, and the path after it, which is empty or begins with a slash.
pub fn template_by(path: &[u8], out: &mut String, mut varies: impl FnMut(&str, &[u8], &[u8]) -> bool) {
    let start = out.len();
    let end = out.len() + MAX_LEN - REST.len() - 1;
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let mut read = 0;
    for (index, whole) in path.split(|b| *b == b'/').enumerate() {
        out.push('/');
        read += whole.len();
        let rest = path.get(read..).unwrap_or_default();
        read += 1;
        // Matrix parameters, such as ;jsessionid=..., are no part of the route.
        let segment = named(whole);
        if index >= MAX_SEGMENTS || out.len() + segment.len().min(MAX_WORD) > end {
            out.push_str(REST);
            return;
        }
        if is_id(segment) {
            out.push_str(ID);
        } else if varies(out.get(start..).unwrap_or_default(), segment, rest) {
            out.push_str(NAME);
        } else {
            push_graphic(segment, out);
        }
    }
}

/// Appends bytes as they are where they can be seen, else as `?`.
fn push_graphic(bytes: &[u8], out: &mut String) {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.iter().all(u8::is_ascii_graphic) => out.push_str(text),
        _ => out.extend(bytes.iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '?' })),
    }
}

/// Appends `METHOD /template` to `out`.
pub fn operation(method: &[u8], path: &[u8], out: &mut String) {
    push_method(method, out);
    template(path, out);
}

/// Appends `METHOD ` to `out`.
pub fn push_method(method: &[u8], out: &mut String) {
    let usual = match method {
        b"GET" => "GET ",
        b"POST" => "POST ",
        b"PUT" => "PUT ",
        b"PATCH" => "PATCH ",
        b"DELETE" => "DELETE ",
        b"HEAD" => "HEAD ",
        b"OPTIONS" => "OPTIONS ",
        _ => "",
    };
    if !usual.is_empty() {
        return out.push_str(usual);
    }
    let method = method.get(..method.len().min(super::head::MAX_METHOD)).unwrap_or_default();
    push_graphic(method, out);
    out.push(' ');
}

/// Nobody names a resource with so many characters.
const MAX_WORD: usize = 64;

/// A segment without its matrix parameters.
#[must_use]
pub fn named(segment: &[u8]) -> &[u8] {
    segment.iter().position(|b| *b == b';').and_then(|at| segment.get(..at)).unwrap_or(segment)
}

/// Whether a segment names an object rather than a kind of objects.
#[must_use]
pub fn is_id(segment: &[u8]) -> bool {
    let has = |class: fn(&u8) -> bool| segment.iter().any(class);
    let all = |class: fn(&u8) -> bool| segment.iter().all(class);
    match segment.len() {
        0 => false,
        len if len > MAX_WORD => true,
        _ if all(u8::is_ascii_digit) || segment.contains(&b'@') || is_numbered(segment) => true,
        36 if is_uuid(segment) => true,
        26 if all(|b| is_crockford(*b)) && has(u8::is_ascii_digit) => true,
        16.. if all(u8::is_ascii_hexdigit) => true,
        20.. if all(|b| is_base64url(*b)) => {
            has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase)
        }
        _ => false,
    }
}

/// Letters, a dash or underscore, and a number: `order-42`.
fn is_numbered(segment: &[u8]) -> bool {
    let digits = segment.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let name = segment.len() - digits;
    digits > 0
        && matches!(segment.get(name.wrapping_sub(1)), Some(b'-' | b'_'))
        && segment.iter().take(name - 1).all(u8::is_ascii_alphabetic)
}

fn is_uuid(segment: &[u8]) -> bool {
    segment.iter().enumerate().all(|(at, b)| match at {
        8 | 13 | 18 | 23 => *b == b'-',
        _ => b.is_ascii_hexdigit(),
    })
}

fn is_crockford(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() && !matches!(byte.to_ascii_uppercase(), b'I' | b'L' | b'O' | b'U')
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(path: &str) -> String {
        let mut out = String::new();
        template(path.as_bytes(), &mut out);
        out
    }

    #[test]
    fn ids_are_replaced_and_words_stay() {
        let cases = [
            ("/", "/"),
            ("", "/"),
            ("*", "/*"),
            ("/orders/42", "/orders/{id}"),
            ("/orders/42/", "/orders/{id}/"),
            ("/v1/users/me", "/v1/users/me"),
            ("/u/3f2504e0-4f89-11d3-9a0c-0305e82c3301/x", "/u/{id}/x"),
            ("/u/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/u/{id}"),
            ("/o/507f1f77bcf86cd799439011", "/o/{id}"),
            ("/t/eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", "/t/{id}"),
            ("/getUserPreferencesForTenant", "/getUserPreferencesForTenant"),
            ("/deadbeef", "/deadbeef"),
            ("/order-42", "/{id}"),
            ("/u/a@b.example", "/u/{id}"),
            ("/a;jsessionid=XYZ/b", "/a/b"),
            ("/a\u{7}\u{e9}", "/a???"),
        ];
        for (path, expected) in cases {
            assert_eq!(of(path), expected, "{path}");
        }
    }

    #[test]
    fn long_paths_end_early() {
        assert!(of(&"/a".repeat(100)).ends_with("/{rest}"));
        assert_eq!(of(&"/a".repeat(100)).matches('/').count(), MAX_SEGMENTS + 1);
        assert!(of(&"/abcdefghijklmnop".repeat(31)).len() <= MAX_LEN);
    }

    #[test]
    fn a_word_that_varies_is_a_name() {
        let mut asked = Vec::new();
        let mut out = String::from("GET ");
        template_by(b"/users/alice;v=1/orders/7/", &mut out, |before, word, after| {
            asked.push(format!("{before} {} {}", word.escape_ascii(), after.escape_ascii()));
            word == b"alice"
        });
        assert_eq!(out, "GET /users/{name}/orders/{id}/");
        let expected = [
            "/ users /alice;v=1/orders/7/",
            "/users/ alice /orders/7/",
            "/users/{name}/ orders /7/",
            "/users/{name}/orders/{id}/  ",
        ];
        assert_eq!(asked, expected);
    }

    #[test]
    fn an_operation_names_the_method() {
        let mut out = String::new();
        operation(b"GET", b"/orders/7", &mut out);
        assert_eq!(out, "GET /orders/{id}");
    }

    proptest! {
        #[test]
        fn a_route_is_printable_and_bounded(path in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut out = String::new();
            template(&path, &mut out);
            prop_assert!(out.len() <= MAX_LEN);
            prop_assert!(out.bytes().all(|b| b.is_ascii_graphic()));
        }
    }
}
