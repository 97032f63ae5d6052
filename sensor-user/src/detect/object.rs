//! Objects: which one a request is about, read from its path and query without keeping any text.
//!
//! An object is named by the segments that vary (`{id}`, `{name}` and the placeholders of configured routes), or by a
//! query parameter whose name says that it holds an id. It does not see ids in bodies.

use crate::detect::roster::stable_hash;
use crate::http::{RequestHead, route, words};

/// The object that a request names. Its id means something beside its route only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// A hash of everything that names it; the same in every run.
    pub id: u64,
    /// The number in it, if it has one: `7` of `/orders/7` and of `/orders/no-7`.
    pub number: Option<u64>,
}

/// Parameters of a query that are looked at. Beyond them come filters.
const MAX_PARAMETERS: usize = 16;

/// Names that end like an id and name the caller or the call instead of an object.
const NOT_OBJECTS: [&[u8]; 12] = [
    b"client",
    b"session",
    b"request",
    b"trace",
    b"correlation",
    b"device",
    b"visitor",
    b"tracking",
    b"app",
    b"tenant",
    b"state",
    b"span",
];

/// The object of a request to `route`, a name such as `GET /orders/{id}`.
#[must_use]
pub fn of(route: &str, request: &RequestHead) -> Option<Object> {
    let (path, query) = request.path_and_query();
    let in_path = if words::has(route.as_bytes(), b'{') { of_path(route, path) } else { None };
    let in_query = if query.is_empty() { None } else { of_query(query) };
    match (in_path, in_query) {
        (Some(path), Some(query)) => Some(Object { id: mix(path.id, query.id), number: query.number }),
        (one, other) => one.or(other),
    }
}

fn of_path(route: &str, path: &[u8]) -> Option<Object> {
    // By bytes: a search for a character costs more to set up than these few take to walk.
    let template = route.as_bytes().split(|b| *b == b' ').nth(1)?;
    let names = template.strip_prefix(b"/").unwrap_or(template).split(|b| *b == b'/');
    let segments = path.strip_prefix(b"/").unwrap_or(path).split(|b| *b == b'/');
    let varying = names.zip(segments).filter(|(name, _)| name.first() == Some(&b'{') && *name != b"{rest}");
    varying.fold(None, |found, (_, segment)| Some(named(found, route::named(segment))))
}

fn of_query(query: &[u8]) -> Option<Object> {
    let parameters = query.split(|b| *b == b'&').take(MAX_PARAMETERS);
    let parameters = parameters.filter_map(|p| memchr::memchr(b'=', p).map(|at| p.split_at(at)));
    let objects = parameters.filter(|(name, value)| value.len() > 1 && is_id_name(name));
    objects.fold(None, |found, (_, value)| Some(named(found, value.get(1..).unwrap_or_default())))
}

/// `id`, `uuid`, and whatever ends in `_id`, `-id` or `Id`.
fn is_id_name(name: &[u8]) -> bool {
    if name.eq_ignore_ascii_case(b"id") || name.eq_ignore_ascii_case(b"uuid") {
        return true;
    }
    let Some((stem, end)) = name.split_last_chunk::<2>() else { return false };
    let stem = match end {
        b"Id" | b"ID" => stem,
        b"id" => match stem.split_last() {
            Some((b'_' | b'-', stem)) => stem,
            _ => return false,
        },
        _ => return false,
    };
    let stem = stem.strip_suffix(b"_").unwrap_or(stem);
    !stem.is_empty() && !NOT_OBJECTS.iter().any(|other| other.eq_ignore_ascii_case(stem))
}

/// Adds a name to what is known of the object so far.
fn named(found: Option<Object>, name: &[u8]) -> Object {
    let id = stable_hash(name);
    let before = found.map(|object| object.id);
    Object { id: before.map_or(id, |before| mix(before, id)), number: number(name) }
}

/// The decimal number at the end of a name; none from 19 digits on, which no counter reaches.
fn number(name: &[u8]) -> Option<u64> {
    let digits = name.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || digits > 18 {
        return None;
    }
    let (rest, digits) = name.split_at(name.len() - digits);
    // A hash ends in digits by chance: only words may come before the number.
    let words = rest.iter().all(|b| b.is_ascii_alphabetic() || matches!(b, b'-' | b'_'));
    words.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Joins two hashes; the order counts.
#[must_use]
pub const fn mix(one: u64, other: u64) -> u64 {
    (one.rotate_left(23) ^ other).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::Stage;

    fn object(route: &str, target: &str) -> Option<Object> {
        of(route, &Stage::to("GET", target).exchange.request)
    }

    #[test]
    fn segments_that_vary_name_the_object() {
        let seven = object("GET /orders/{id}", "/orders/7").unwrap();
        assert_eq!(seven.number, Some(7));
        assert_eq!(object("GET /orders/{id}", "/orders/7?expand=1;x"), Some(seven));
        assert_ne!(object("GET /orders/{id}", "/orders/8").unwrap().id, seven.id);
        assert_eq!(object("GET /orders", "/orders"), None);
        assert_eq!(object("GET /orders/{id}", "/orders/no-7").unwrap().number, Some(7));
        assert_eq!(object("GET /u/{id}", "/u/3f2504e0-4f89-11d3-9a0c-0305e82c3301").unwrap().number, None);
    }

    #[test]
    fn every_varying_segment_counts_in_its_order() {
        let one = object("GET /a/{id}/b/{name}", "/a/1/b/2").unwrap();
        let other = object("GET /a/{id}/b/{name}", "/a/2/b/1").unwrap();
        assert_ne!(one.id, other.id);
        assert_eq!(one.number, Some(2));
    }

    #[test]
    fn queries_name_objects_by_names_that_say_so() {
        for query in ["id=7", "x=1&orderId=7", "order_id=7", "ID=7"] {
            assert_eq!(object("GET /order", &format!("/order?{query}")).unwrap().number, Some(7), "{query}");
        }
        for query in ["", "paid=7", "client_id=7", "sessionId=7", "id=", "valid=1", "q=id"] {
            assert_eq!(object("GET /order", &format!("/order?{query}")), None, "{query}");
        }
    }

    #[test]
    fn graphql_operations_are_no_part_of_the_path() {
        assert_eq!(object("POST /graphql query Orders{id}", "/graphql"), None);
    }
}
