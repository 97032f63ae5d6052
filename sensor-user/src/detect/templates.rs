//! Templates: which words of a path name objects, learned from traffic or said by the configuration.
//!
//! A word varies if very many different ones were answered in its place: more than 30 with the same word after them
//! (`/users/alice/orders`, `/users/bob/orders`), or in the last place more than 30 that are seldom asked for again,
//! or more than 120 in any case. A service with thirty kinds of resources, which everybody uses, keeps its names.
//!
//! Only answers of 2xx and 304 teach: scans for what is not there do not. A route that stands out from those beside
//! it keeps its word, so that a server which answers everything does not hide what it guards. Words of configured and
//! shipped routes never vary, and a configured route without `*` fixes its template.
//!
//! It costs nothing while a route is known: learning happens once for each new route. Bounds: 4,096 places of up to
//! 121 words (1.5 KiB), of which 1,024 may be found to vary.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::detect::roster::stable_hash;
use crate::detect::settings::{DEFAULT_ROUTES, RouteMatch};
use crate::detect::table::Table;
use crate::detect::{Guard, Slot};
use crate::http::route;

/// Words after which a place varies, where that is plain.
const MANY: usize = 30;

/// Words after which a place varies in any case: no API has so many kinds of resources side by side.
const TOO_MANY: usize = 120;

/// Requests for each word, on average, above which the words are a closed set that is used again and again.
const SELDOM: u32 = 4;

/// Places whose words are remembered.
const MAX_PLACES: usize = 4096;

/// Places that may vary.
const MAX_OPEN: usize = 1024;

/// Words of a place that stay.
const MAX_KEPT: usize = 16;

/// Words that stand beside object names in many APIs and mean an operation or the caller.
const WORDS: [&str; 20] = [
    "me", "self", "search", "new", "count", "export", "import", "batch", "bulk", "current", "stats", "all",
    "list", "admin", "internal", "api", "v1", "v2", "v3", "graphql",
];

/// What follows a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Next {
    Nothing,
    Id,
    /// A word that varies itself.
    Name,
    Word(u64),
    /// Whatever it is.
    Any,
}

/// What is known of a route that is taught.
#[derive(Clone, Copy, Debug)]
pub struct Taught {
    /// Requests so far.
    pub uses: u32,
    /// Its guard.
    pub guard: Guard,
}

/// The words that stood in one place.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Words(Vec<(u32, Slot)>);

/// A place that varies.
#[derive(Debug, Serialize, Deserialize)]
struct Open {
    /// What routes with a name in this place begin with: the guard of those that were known by their words.
    guard: Guard,
    /// Words that stay.
    kept: Vec<u32>,
}

/// What was learned.
#[derive(Debug, Serialize, Deserialize)]
pub struct Learned {
    words: Table<u64, Words>,
    open: Table<u64, Open>,
}

/// A configured route that fixes its template.
#[derive(Clone, Debug)]
struct Fixed {
    method: Option<String>,
    segments: Vec<String>,
    name: String,
}

/// The templates of all servers.
#[derive(Debug)]
pub struct Templates {
    learned: Learned,
    fixed: Vec<Fixed>,
    /// Hashes of words that never vary, sorted.
    words: Vec<u32>,
}

impl Templates {
    /// Knows what the configuration says.
    #[must_use]
    pub fn new(configured: &[RouteMatch]) -> Self {
        let shipped = DEFAULT_ROUTES.iter().map(|(text, _)| *text);
        let patterns = configured.iter().map(|m| m.pattern.as_str()).chain(shipped);
        let mut words: Vec<u32> =
            patterns.flat_map(|p| p.split(['/', ' '])).chain(WORDS).map(|w| word_of(w.as_bytes())).collect();
        words.sort_unstable();
        words.dedup();
        Self {
            learned: Learned { words: Table::new(MAX_PLACES), open: Table::new(MAX_OPEN) },
            fixed: configured.iter().filter_map(Fixed::of).collect(),
            words,
        }
    }

    /// What was learned, for a snapshot.
    #[must_use]
    pub const fn learned(&self) -> &Learned {
        &self.learned
    }

    /// Takes over what an earlier run learned.
    pub fn resume(&mut self, mut earlier: Learned) {
        earlier.words.limit(MAX_PLACES);
        earlier.open.limit(MAX_OPEN);
        self.learned = earlier;
    }

    /// Appends `METHOD /template` to `out`.
    #[inline]
    pub fn operation(&mut self, server: SocketAddr, method: &[u8], path: &[u8], out: &mut String) {
        route::push_method(method, out);
        if let Some(fixed) = self.fixed.iter().find(|fixed| fixed.fits(method, path)) {
            out.push_str(&fixed.name);
            return;
        }
        if self.learned.open.is_empty() {
            route::template(path, out);
            return;
        }
        let Self { learned, words, .. } = self;
        route::template_by(path, out, |before, word, after| {
            varies(&mut learned.open, words, server, before, word, after).is_some()
        });
    }

    /// Learns from a route that was answered for the first time, by its `METHOD /template`. `known` tells what is known
    /// of a route by its slot.
    pub fn teach(
        &mut self,
        server: SocketAddr,
        name: &str,
        slot: Slot,
        known: impl Fn(Slot) -> Option<Taught>,
    ) {
        let Some((_, template)) = name.split_once(' ') else { return };
        let segments: Vec<&str> = template.split('/').skip(1).collect();
        let mut before = String::from("/");
        for (at, segment) in segments.iter().enumerate() {
            let word = word_of(segment.as_bytes());
            let is_word = !segment.is_empty() && !segment.starts_with('{');
            if is_word && self.words.binary_search(&word).is_err() {
                let next = match segments.get(at + 1) {
                    None => Next::Nothing,
                    Some(&route::NAME) => Next::Name,
                    Some(next) if next.starts_with('{') => Next::Id,
                    Some(next) => Next::Word(stable_hash(next.as_bytes())),
                };
                for next in [next, Next::Any] {
                    self.learn(place(server, &before, next), next, (word, slot), &known);
                }
            }
            before.push_str(segment);
            before.push('/');
        }
    }

    /// The guard that a new route begins with: that of the words which its names stand for.
    #[must_use]
    pub fn guard(&mut self, server: SocketAddr, name: &str) -> Guard {
        let Some((_, template)) = name.split_once(' ') else { return Guard::Unknown };
        let Some(at) = template.find(route::NAME) else { return Guard::Unknown };
        let (before, rest) = template.split_at(at);
        let after = rest.strip_prefix(route::NAME).unwrap_or_default();
        let open = &mut self.learned.open;
        candidates(after.as_bytes())
            .into_iter()
            .find_map(|next| open.get(&place(server, before, next)).map(|open| open.guard))
            .unwrap_or_default()
    }

    fn learn(
        &mut self,
        place: u64,
        next: Next,
        (word, slot): (u32, Slot),
        known: &impl Fn(Slot) -> Option<Taught>,
    ) {
        if self.learned.open.get(&place).is_some() {
            return;
        }
        let Some(words) = self.learned.words.get_or(place, Words::default) else { return };
        if let Some(same) = words.0.iter_mut().find(|(known, _)| *known == word) {
            same.1 = slot;
            return;
        }
        if words.0.len() <= TOO_MANY {
            words.0.push((word, slot));
        }
        if let Some(open) = words.open(next, known) {
            self.learned.open.get_or(place, || open);
            let hash = self.learned.words.hash_of(&place);
            self.learned.words.remove(hash, |p| *p == place);
        }
    }
}

impl Words {
    /// What the place becomes if its words vary.
    fn open(&self, next: Next, known: &impl Fn(Slot) -> Option<Taught>) -> Option<Open> {
        let count = self.0.len();
        if count <= MANY || (next == Next::Any && count <= TOO_MANY) {
            return None;
        }
        let taught: Vec<(u32, Taught)> =
            self.0.iter().filter_map(|(word, slot)| Some((*word, known(*slot)?))).collect();
        let uses: u32 = taught.iter().map(|(_, taught)| taught.uses).fold(0, u32::saturating_add);
        let mean = uses / u32::try_from(taught.len()).unwrap_or(u32::MAX).max(1);
        if count <= TOO_MANY && !matches!(next, Next::Word(_)) && mean >= SELDOM {
            return None;
        }
        let has = |guard| taught.iter().any(|(_, taught)| taught.guard == guard);
        let guard = match (has(Guard::Open), has(Guard::Refuses)) {
            (false, true) => Guard::Refuses,
            (true, false) => Guard::Open,
            _ => Guard::Unknown,
        };
        let stands_out = |taught: &Taught| {
            (has(Guard::Open) && taught.guard == Guard::Refuses)
                || (taught.uses >= 50 && taught.uses / 8 > mean)
        };
        let kept = taught.iter().filter(|(_, taught)| stands_out(taught)).map(|(word, _)| *word);
        Some(Open { guard, kept: kept.take(MAX_KEPT).collect() })
    }
}

impl Fixed {
    fn of(configured: &RouteMatch) -> Option<Self> {
        if configured.pattern.contains('*') {
            return None;
        }
        let segments: Vec<String> =
            configured.pattern.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        let name = format!("/{}", segments.join("/"));
        Some(Self { method: configured.method.clone(), segments, name })
    }

    fn fits(&self, method: &[u8], path: &[u8]) -> bool {
        if self.method.as_ref().is_some_and(|m| !m.as_bytes().eq_ignore_ascii_case(method)) {
            return false;
        }
        let mut wanted = self.segments.iter();
        let mut held = path.split(|b| *b == b'/').filter(|segment| !segment.is_empty());
        loop {
            match (wanted.next(), held.next()) {
                (None, None) => return true,
                (Some(want), Some(have))
                    if want.starts_with('{') || want.as_bytes().eq_ignore_ascii_case(route::named(have)) => {}
                _ => return false,
            }
        }
    }
}

/// Whether a word varies: the place that says so.
fn varies(
    open: &mut Table<u64, Open>,
    words: &[u32],
    server: SocketAddr,
    before: &str,
    word: &[u8],
    after: &[u8],
) -> Option<()> {
    let places = candidates(after).map(|next| place(server, before, next));
    let found = places.into_iter().find(|place| open.get(place).is_some())?;
    let found = open.get(&found)?;
    let hash = word_of(word);
    let stays = word.is_empty() || words.binary_search(&hash).is_ok() || found.kept.contains(&hash);
    (!stays).then_some(())
}

/// What may be known under the path after a word.
fn candidates(after: &[u8]) -> [Next; 3] {
    let Some(rest) = after.strip_prefix(b"/") else { return [Next::Nothing, Next::Any, Next::Any] };
    let next = route::named(rest.split(|b| *b == b'/').next().unwrap_or_default());
    if next == route::NAME.as_bytes() {
        return [Next::Name, Next::Any, Next::Any];
    }
    if next.starts_with(b"{") || route::is_id(next) {
        return [Next::Id, Next::Any, Next::Any];
    }
    [Next::Word(stable_hash(next)), Next::Name, Next::Any]
}

fn place(server: SocketAddr, before: &str, next: Next) -> u64 {
    stable_hash(&(server, before, next))
}

/// A word's short name; case does not count.
fn word_of(word: &[u8]) -> u32 {
    // FNV-1a, 32 bits: the same in every run.
    word.iter()
        .fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b.to_ascii_lowercase())).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> SocketAddr {
        "10.0.0.1:8080".parse().unwrap()
    }

    fn name(templates: &mut Templates, path: &str) -> String {
        let mut out = String::new();
        templates.operation(server(), b"GET", path.as_bytes(), &mut out);
        out.split_off(4)
    }

    /// Teaches each path as its own route, used so often.
    fn teach(templates: &mut Templates, paths: impl IntoIterator<Item = String>, uses: u32) {
        for (path, at) in paths.into_iter().zip(0..) {
            let name = format!("GET {}", name(templates, &path));
            let known = |_| Some(Taught { uses, guard: Guard::Refuses });
            templates.teach(server(), &name, Slot { at, life: 1 }, known);
        }
    }

    fn people(n: u32, after: &str) -> Vec<String> {
        let letter = |n: u32| char::from(b'a' + u8::try_from(n % 26).unwrap());
        (0..n).map(|n| format!("/users/p{}{}{after}", letter(n), letter(n / 26))).collect()
    }

    #[test]
    fn many_words_with_one_continuation_are_names() {
        let mut templates = Templates::new(&[]);
        teach(&mut templates, people(30, "/orders"), 500);
        assert_eq!(name(&mut templates, "/users/zoe/orders"), "/users/zoe/orders");
        teach(&mut templates, people(31, "/orders"), 500);
        assert_eq!(name(&mut templates, "/users/zoe/orders"), "/users/{name}/orders");
        assert_eq!(name(&mut templates, "/users/zoe/orders/7"), "/users/{name}/orders/{id}");
        assert_eq!(name(&mut templates, "/users/zoe/invoices"), "/users/zoe/invoices");
        assert_eq!(name(&mut templates, "/users/me/orders"), "/users/me/orders");
    }

    #[test]
    fn last_words_are_names_if_they_seldom_return() {
        let (mut seldom, mut often) = (Templates::new(&[]), Templates::new(&[]));
        teach(&mut seldom, people(31, ""), 2);
        teach(&mut often, people(40, ""), 100);
        assert_eq!(name(&mut seldom, "/users/zoe"), "/users/{name}");
        assert_eq!(name(&mut often, "/users/zoe"), "/users/zoe", "forty resources that all use");
        teach(&mut often, people(130, ""), 100);
        assert_eq!(name(&mut often, "/users/zoe"), "/users/{name}");
    }

    #[test]
    fn names_inside_names_are_found_one_after_the_other() {
        let mut templates = Templates::new(&[]);
        let paths = |templates: &mut Templates| {
            let all: Vec<String> = people(130, "")
                .iter()
                .flat_map(|user| ["red", "green", "blue"].map(|repo| format!("{user}/{repo}{}", &user[7..])))
                .collect();
            teach(templates, all, 1);
        };
        paths(&mut templates);
        paths(&mut templates);
        assert_eq!(name(&mut templates, "/users/zoe/black"), "/users/{name}/{name}");
    }

    #[test]
    fn a_new_template_keeps_the_guard_of_its_words() {
        let mut templates = Templates::new(&[]);
        teach(&mut templates, people(31, "/orders"), 2);
        assert_eq!(templates.guard(server(), "GET /users/{name}/orders"), Guard::Refuses);
        assert_eq!(templates.guard(server(), "GET /users/{name}/other"), Guard::Unknown);
    }

    #[test]
    fn a_route_that_stands_out_keeps_its_word() {
        let mut templates = Templates::new(&[]);
        for (path, at) in people(130, "").into_iter().zip(0..) {
            let guarded = Slot { at: 7, life: 1 };
            let known = |slot| {
                let guard = if slot == guarded { Guard::Refuses } else { Guard::Open };
                Some(Taught { uses: 1, guard })
            };
            templates.teach(server(), &format!("GET {path}"), Slot { at, life: 1 }, known);
        }
        assert_eq!(name(&mut templates, &people(8, "")[7]), people(8, "")[7]);
        assert_eq!(name(&mut templates, "/users/zoe"), "/users/{name}");
    }

    #[test]
    fn configured_templates_are_as_they_say() {
        let kind = crate::detect::RouteKind::Plain;
        let fixed =
            ["GET /users/{user}", "/step-1/{x}/done", "/all/**"].map(|text| RouteMatch::new(text, kind));
        let mut templates = Templates::new(&fixed);
        assert_eq!(name(&mut templates, "/users/zoe"), "/users/{user}");
        assert_eq!(name(&mut templates, "/Step-1/7;v=2/done/"), "/step-1/{x}/done");
        assert_eq!(name(&mut templates, "/all/zoe"), "/all/zoe");
        let mut out = String::new();
        templates.operation(server(), b"PUT", b"/users/zoe", &mut out);
        assert_eq!(out, "PUT /users/zoe");
    }

    #[test]
    fn memory_is_bounded_and_a_restart_keeps_it() {
        let mut templates = Templates::new(&[]);
        teach(&mut templates, people(31, "/orders"), 2);
        teach(&mut templates, (0..5000).map(|n| format!("/api/x{n}y/z{n}y/w{n}y")), 1);
        assert!(templates.learned.words.len() <= MAX_PLACES && templates.learned.open.len() <= MAX_OPEN);
        let saved = postcard::to_allocvec(templates.learned()).unwrap();
        let mut fresh = Templates::new(&[]);
        fresh.resume(postcard::from_bytes(&saved).unwrap());
        assert_eq!(name(&mut fresh, "/users/zoe/orders"), "/users/{name}/orders");
    }
}
