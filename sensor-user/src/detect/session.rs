//! Which session a request belongs to, as its cookie says. A session cookie is a secret like a token: what is kept of
//! it is a keyed hash, and that only of values that can be nobody else's.

use std::fmt;
use std::hash::BuildHasher;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::detect::roster::stable_hash;
use crate::http::RequestHead;

/// Cookies that hold a session, of common frameworks. `__Host-` and `__Secure-` may stand before them.
const COOKIES: [&str; 20] = [
    "sid",
    "session",
    "sessionid",
    "session_id",
    "sessid",
    "_session",
    "_session_id",
    "SESSION",
    "JSESSIONID",
    "PHPSESSID",
    "CGISESSID",
    "connect.sid",
    "koa.sid",
    "ASP.NET_SessionId",
    ".AspNetCore.Session",
    "laravel_session",
    "ci_session",
    "beaker.session.id",
    "rack.session",
    "_shibsession",
];

/// Shortest value that can name a session for sure: 64 bits in hexadecimal digits. Shorter ones are states (`sid=1`).
const MIN_VALUE: usize = 16;

/// Longest value: a cookie has at most 4096 bytes (RFC 6265 section 6.1).
const MAX_VALUE: usize = 4096;

/// Different bytes that a value has at least. Of sixteen random hexadecimal digits, fewer are different once in 100,000
/// times; of a constant or a padded number, hardly ever as many.
const MIN_DIFFERENT: u32 = 6;

/// Cookie headers whose session is remembered: those of the clients of a second.
const RECENT: usize = 1024;

/// The secret under which session cookies are hashed.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(Zeroizing<[u8; 32]>);

impl SessionKey {
    /// From the sensor's key, so that sessions outlive a restart.
    #[must_use]
    pub fn derived(key: &[u8]) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"tokenscope session cookies");
        let mut secret = Zeroizing::new([0; 32]);
        secret.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        Self(secret)
    }
}

/// Known to everybody: for tests, and for replays, whose output must be the same each time.
impl Default for SessionKey {
    fn default() -> Self {
        Self(Zeroizing::new(*b"tokenscope replay: no secret key"))
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Which cookie names it, by a hash of the cookie's name.
    pub kind: u64,
    /// Its own name: a keyed hash.
    pub name: u64,
}

/// Finds the session of requests.
pub struct Sessions {
    cookies: Vec<Box<[u8]>>,
    key: hmac::Key,
    /// By the hash of the whole header: of one client it is the same for many requests. Never kept in a snapshot.
    recent: Vec<(u64, Option<Session>)>,
    seed: foldhash::fast::RandomState,
}

impl Sessions {
    /// Knows the cookies of common frameworks, and these.
    #[must_use]
    pub fn new(cookies: &[String], key: &SessionKey) -> Self {
        let names = cookies.iter().map(String::as_str).chain(COOKIES);
        Self {
            cookies: names.map(|name| name.as_bytes().into()).collect(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &*key.0),
            recent: Vec::new(),
            seed: foldhash::fast::RandomState::default(),
        }
    }

    /// The session of a request; the first, if its cookies name several.
    pub fn of(&mut self, request: &RequestHead) -> Option<Session> {
        request.values("cookie").find_map(|header| self.of_header(header))
    }

    fn of_header(&mut self, header: &[u8]) -> Option<Session> {
        let hash = self.seed.hash_one(header);
        if self.recent.is_empty() {
            self.recent = vec![(0, None); RECENT];
        }
        #[allow(clippy::cast_possible_truncation, reason = "the remainder is below RECENT, which is a usize")]
        let at = (hash % RECENT as u64) as usize;
        if let Some((_, known)) = self.recent.get(at).filter(|(known, _)| *known == hash) {
            return *known;
        }
        let session = self.read(header);
        if let Some(place) = self.recent.get_mut(at) {
            *place = (hash, session);
        }
        session
    }

    fn read(&self, header: &[u8]) -> Option<Session> {
        header.split(|b| *b == b';').find_map(|pair| {
            let (name, value) = pair.split_at_checked(memchr::memchr(b'=', pair)?)?;
            let name = unprefixed(name.trim_ascii());
            self.cookies.iter().find(|known| &***known == name)?;
            let value = unquoted(value.get(1..)?.trim_ascii());
            is_random(value).then(|| Session { kind: stable_hash(name), name: self.hash(name, value) })
        })
    }

    /// 64 bits of HMAC-SHA-256. Names of cookies hold no `=`, so that the two parts cannot be mistaken.
    fn hash(&self, name: &[u8], value: &[u8]) -> u64 {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [name, b"=", value] {
            context.update(part);
        }
        u64::from_le_bytes(context.sign().as_ref().first_chunk().copied().unwrap_or_default())
    }
}

fn unprefixed(name: &[u8]) -> &[u8] {
    let prefixes = [b"__Host-".as_slice(), b"__Secure-"];
    prefixes.iter().find_map(|prefix| name.strip_prefix(*prefix)).unwrap_or(name)
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value)
}

/// Whether a value may have been drawn at random with 64 bits or more: long enough, of enough different bytes, and of
/// digits and letters, or of letters in both cases. Words and constants are not.
fn is_random(value: &[u8]) -> bool {
    if !(MIN_VALUE..=MAX_VALUE).contains(&value.len()) {
        return false;
    }
    let mut seen = [0_u64; 4];
    let (mut digits, mut upper, mut lower) = (false, false, false);
    for byte in value {
        if let Some(word) = seen.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
        digits |= byte.is_ascii_digit();
        upper |= byte.is_ascii_uppercase();
        lower |= byte.is_ascii_lowercase();
    }
    let different: u32 = seen.iter().map(|word| word.count_ones()).sum();
    different >= MIN_DIFFERENT && (upper || lower) && (digits || (upper && lower))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::detect::staging::Stage;

    fn of(sessions: &mut Sessions, cookie: &str) -> Option<Session> {
        sessions.of(&Stage::new().header("Cookie", cookie).exchange.request)
    }

    fn sessions() -> Sessions {
        Sessions::new(&["shop_login".to_owned()], &SessionKey::default())
    }

    #[test]
    fn one_value_is_one_session_whatever_stands_beside_it() {
        let mut all = sessions();
        let first = of(&mut all, "theme=dark; sid=0123456789abcdef").unwrap();
        for same in [
            "sid=0123456789abcdef",
            " sid = 0123456789abcdef ;a=b",
            "sid=\"0123456789abcdef\"",
            "__Host-sid=0123456789abcdef",
        ] {
            assert_eq!(of(&mut all, same), Some(first), "{same}");
            assert_eq!(of(&mut all, same), Some(first), "{same}, remembered");
        }
        let other = of(&mut all, "sid=0123456789abcdee").unwrap();
        assert!(other.kind == first.kind && other.name != first.name);
        assert_ne!(of(&mut all, "session=0123456789abcdef").unwrap().name, first.name);
    }

    #[test]
    fn cookies_of_frameworks_and_of_the_configuration_are_known() {
        for cookie in [
            "JSESSIONID=8A3F0C9B7D2E41568A3F0C9B7D2E4156",
            "connect.sid=s%3AqJ8x0c2Yv5bN1mLz.kT7p",
            "PHPSESSID=q7h2m9c4v1b8n3x6z5l0k2j4",
            "shop_login=1f0c9b7d2e41568a",
            "a=b; __Secure-ASP.NET_SessionId=qhmlz0c2yv5bn1xkt7pr3dwe",
        ] {
            assert!(of(&mut sessions(), cookie).is_some(), "{cookie}");
        }
        for cookie in ["login=1f0c9b7d2e41568a", "SID=1f0c9b7d2e41568a", "=", "sid", ""] {
            assert!(of(&mut sessions(), cookie).is_none(), "{cookie}");
        }
    }

    #[test]
    fn values_that_many_may_share_name_no_session() {
        for value in [
            "1",
            "anonymous",
            "anonymous-visitor",
            "00000000000000000000000000000001",
            "00000000-0000-0000-0000-000000000000",
            "aaaaaaaaaaaaaaaaaaa1",
            "1795284245000000",
            "deleted",
        ] {
            assert!(!is_random(value.as_bytes()), "{value}");
        }
        assert!(!is_random(&b"a1B2c3D4e5".repeat(1000)));
    }

    #[test]
    fn what_is_kept_depends_on_the_key() {
        let of_key = |key: &[u8]| {
            of(&mut Sessions::new(&[], &SessionKey::derived(key)), "sid=0123456789abcdef").unwrap().name
        };
        assert_eq!(of_key(b"one"), of_key(b"one"));
        assert_ne!(of_key(b"one"), of_key(b"two"));
        assert_eq!(format!("{:?}", SessionKey::derived(b"one")), "SessionKey(..)");
    }

    proptest! {
        #[test]
        fn random_values_are_sessions(bytes in any::<[u8; 16]>()) {
            let hex = bytes.map(|b| format!("{b:02x}")).concat();
            // Of 32 digits, all decimal or of five kinds only, once in millions.
            prop_assume!(bytes.iter().collect::<std::collections::BTreeSet<_>>().len() > 8);
            prop_assume!(hex.bytes().any(|b| b.is_ascii_alphabetic()) && hex.bytes().any(|b| b.is_ascii_digit()));
            prop_assert!(is_random(hex.as_bytes()));
        }

        #[test]
        fn any_header_is_survived(header in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = sessions().of_header(&header);
        }
    }
}
