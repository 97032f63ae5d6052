//! Which requests go where: patterns of methods and paths, the first of which that fits decides.
//!
//! A pattern goes by segments: `*` and `{name}` stand for one, `**` for any number of them. Case is ignored, and so
//! are matrix parameters and empty segments, as most servers ignore them.

use arrayvec::ArrayVec;

/// Most segments of a path that is compared; a longer one fits nothing. No framework's routes come near.
const MAX_SEGMENTS: usize = 32;

/// Where users log in, as common frameworks have it.
pub const LOGIN_ROUTES: &[&str] = &[
    "POST /**/login",
    "POST /**/signin",
    "POST /**/sign-in",
    "POST /**/authenticate",
    "POST /**/session",
    "POST /**/sessions",
];

/// Where tokens are issued and refreshed, as common servers have it.
pub const TOKEN_ROUTES: &[&str] = &[
    "POST /**/oauth/token",
    "POST /**/oauth2/token",
    "POST /**/connect/token",
    "POST /**/openid-connect/token",
    "POST /**/token/refresh",
    "POST /**/refresh",
];

/// Where GraphQL is served.
pub const GRAPHQL_ROUTES: &[&str] = &["POST /**/graphql"];

/// Patterns in order, each with what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTable<T>(Vec<Entry<T>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry<T> {
    method: Option<String>,
    segments: Vec<String>,
    value: T,
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> RouteTable<T> {
    /// Adds a pattern after those that are there.
    pub fn push(&mut self, method: Option<&str>, pattern: &str, value: T) {
        let segments = pattern.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        self.0.push(Entry { method: method.map(str::to_owned), segments, value });
    }

    /// Adds `POST /login` or `/health`.
    pub fn push_text(&mut self, text: &str, value: T) {
        match text.trim().split_once(char::is_whitespace) {
            Some((method, path)) => self.push(Some(method), path.trim(), value),
            None => self.push(None, text.trim(), value),
        }
    }

    /// Whether there are no patterns.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any pattern takes another method than POST.
    #[must_use]
    pub fn is_only_for_posts(&self) -> bool {
        self.0.iter().all(|e| e.method.as_ref().is_some_and(|m| m.eq_ignore_ascii_case("POST")))
    }

    /// What the first pattern that fits stands for. Allocates nothing.
    #[must_use]
    pub fn find(&self, method: &[u8], path: &[u8]) -> Option<&T> {
        let mut segments: ArrayVec<&[u8], MAX_SEGMENTS> = ArrayVec::new();
        for segment in path.split(|b| *b == b'/') {
            let name = segment.split(|b| *b == b';').next().unwrap_or_default();
            if !name.is_empty() && segments.try_push(name).is_err() {
                return None;
            }
        }
        self.0.iter().find(|entry| entry.fits(method, &segments)).map(|entry| &entry.value)
    }
}

impl<T> Entry<T> {
    fn fits(&self, method: &[u8], path: &[&[u8]]) -> bool {
        let last_differs = match (self.segments.last(), path.last()) {
            (Some(want), Some(have)) => !is_any(want) && want != "**" && !same(want, have),
            _ => false,
        };
        !last_differs
            && self.method.as_ref().is_none_or(|m| m.as_bytes().eq_ignore_ascii_case(method))
            && segments_match(&self.segments, path)
    }
}

fn is_any(want: &str) -> bool {
    want == "*" || want.starts_with('{')
}

fn same(want: &str, have: &[u8]) -> bool {
    want.as_bytes().eq_ignore_ascii_case(have)
}

/// Glob by segments, with one point to return to: time is at most the product of both lengths.
fn segments_match(pattern: &[String], path: &[&[u8]]) -> bool {
    let (mut p, mut s) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while s < path.len() {
        match (pattern.get(p).map(String::as_str), path.get(s)) {
            (Some("**"), _) => {
                retry = Some((p + 1, s));
                p += 1;
            }
            (Some(want), Some(have)) if is_any(want) || same(want, have) => {
                p += 1;
                s += 1;
            }
            _ => match retry {
                Some((after, at)) => {
                    retry = Some((after, at + 1));
                    p = after;
                    s = at + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|rest| rest == "**")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(patterns: &[&str]) -> RouteTable<usize> {
        let mut table = RouteTable::default();
        for (number, pattern) in patterns.iter().enumerate() {
            table.push_text(pattern, number);
        }
        table
    }

    #[test]
    fn the_first_that_fits_decides() {
        let table = table(&["POST /login", "/**/login", "/{tenant}/x/*"]);
        for (method, path, found) in [
            ("POST", "/login", Some(0)),
            ("GET", "/login", Some(1)),
            ("POST", "//v1/LOGIN;jsessionid=1/", Some(1)),
            ("PUT", "/acme/x/7", Some(2)),
            ("PUT", "/acme/x", None),
            ("POST", "/loginx", None),
            ("POST", "", None),
        ] {
            assert_eq!(table.find(method.as_bytes(), path.as_bytes()).copied(), found, "{method} {path}");
        }
    }

    #[test]
    fn absurd_paths_fit_nothing() {
        assert_eq!(table(&["/**"]).find(b"GET", "/a".repeat(33).as_bytes()), None);
        assert_eq!(table(&["/**"]).find(b"GET", "/a".repeat(32).as_bytes()), Some(&0));
    }

    #[test]
    fn says_whether_posts_suffice() {
        assert!(table(LOGIN_ROUTES).is_only_for_posts());
        assert!(!table(&["POST /a", "/b"]).is_only_for_posts());
    }

    /// The plain recursive reading of the same pattern language.
    fn model(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => {
                model(rest, path) || path.split_first().is_some_and(|(_, tail)| model(pattern, tail))
            }
            (Some((want, p)), Some((have, s))) => (*want == "*" || want == have) && model(p, s),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matches_as_its_model_does(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "**"]), 0..6),
            path in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 0..8),
        ) {
            let found = table(&[&format!("/{}", pattern.join("/"))]).find(b"GET", path.join("/").as_bytes()).is_some();
            prop_assert_eq!(found, model(&pattern, &path));
        }
    }
}
