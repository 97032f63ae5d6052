//! Login attempts: what counts as one, whether it failed, and whose account it names.
//!
//! A failure is 401, 403 or 423 on a login route; 400 and 422 as well where the request names an account, because many
//! frameworks answer a wrong password so; and a redirect back to where it came from or to an error. A success is 2xx,
//! or a redirect elsewhere with a cookie. On token routes only requests that name an account and no refresh token
//! count: the password grant and its like. Reading a login page is no attempt.

use crate::detect::challenge::asks_for_nonce;
use crate::detect::holder::holder;
use crate::detect::roster::stable_hash;
use crate::detect::{Case, RouteKind, spelling, text};
use crate::http::Exchange;

/// An attempt to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// It failed; otherwise it succeeded.
    pub failed: bool,
    /// Names the account, by a hash that ignores its spelling; none if the request does not.
    pub account: Option<u64>,
    /// Names the holder of the client's address.
    pub address: u64,
}

impl Login {
    /// The attempt that an exchange on a route of this kind is, if it is one. With `lax`, 400 and 422 are failures
    /// without an account too.
    #[inline]
    #[must_use]
    pub fn of(exchange: &Exchange, kind: RouteKind, lax: bool) -> Option<Self> {
        if !matches!(kind, RouteKind::Login | RouteKind::Token) {
            return None;
        }
        Self::read(exchange, kind, lax)
    }

    fn read(exchange: &Exchange, kind: RouteKind, lax: bool) -> Option<Self> {
        let named = exchange.account();
        let refreshes = exchange.body.as_ref().is_some_and(|body| body.refresh_token.is_some());
        if kind == RouteKind::Token && (named.is_none() || refreshes) {
            return None;
        }
        if named.is_none() && matches!(exchange.request.method(), b"GET" | b"HEAD" | b"OPTIONS") {
            return None;
        }
        if asks_for_nonce(exchange) {
            return None;
        }
        let failed = has_failed(exchange, lax || named.is_some())?;
        let account = named.map(spelling::account);
        Some(Self { failed, account, address: stable_hash(&holder(exchange.client)) })
    }

    /// Names the account at this address; the address alone if there is no account.
    #[must_use]
    pub fn pair(&self) -> u64 {
        stable_hash(&(self.account, self.address))
    }
}

fn has_failed(exchange: &Exchange, lax: bool) -> Option<bool> {
    match exchange.status()? {
        200..=299 => Some(false),
        401 | 403 | 423 => Some(true),
        400 | 422 if lax => Some(true),
        302 | 303 => redirected(exchange),
        _ => None,
    }
}

/// Words in a `Location` that say no.
const NO: [&[u8]; 4] = [b"error", b"fail", b"invalid", b"denied"];

fn redirected(exchange: &Exchange) -> Option<bool> {
    let answer = exchange.response.as_ref()?;
    let to = answer.value("location")?;
    let lower: smallvec::SmallVec<[u8; 256]> = to.iter().take(256).map(u8::to_ascii_lowercase).collect();
    let path = lower.split(|b| matches!(b, b'?' | b'#')).next().unwrap_or_default();
    let back = exchange.request.path();
    if NO.iter().any(|word| memchr::memmem::find(&lower, word).is_some())
        || (back.len() > 1 && path.ends_with(&back.to_ascii_lowercase()))
    {
        return Some(true);
    }
    answer.value("set-cookie").map(|_| false)
}

/// Longest account shown, in bytes: that of an e-mail's local part (RFC 5321 section 4.5.3.1.1).
pub const MAX_ACCOUNT: usize = 64;

/// An account as findings show it: printable, bounded, no capability.
#[must_use]
pub fn shown(account: &str) -> String {
    text::clean_segment(&text::printable(account.as_bytes(), MAX_ACCOUNT))
}

/// The account that a case names, as findings show it.
#[must_use]
pub fn shown_account(case: &Case<'_>) -> Option<String> {
    case.exchange.account().map(shown)
}

#[cfg(test)]
mod days;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::Stage;
    use crate::http::{Header, ResponseHead};

    fn read(stage: &Stage, kind: RouteKind) -> Option<Login> {
        Login::of(&stage.exchange, kind, false)
    }

    fn failed(stage: &Stage) -> Option<bool> {
        read(stage, RouteKind::Login).map(|login| login.failed)
    }

    fn post(status: u16) -> Stage {
        Stage::to("POST", "/login").status(status)
    }

    fn redirect(to: &str, cookie: bool) -> Stage {
        let mut stage = post(302);
        let text = format!("Location{to}Set-Cookie");
        let end = u32::try_from(8 + to.len()).unwrap();
        let mut headers = vec![Header { name: 0..8, value: 8..end }];
        if cookie {
            headers.push(Header { name: end..end + 10, value: 0..1 });
        }
        let response = ResponseHead { status: 302, minor_version: 1, bytes: text.into_bytes(), headers };
        stage.exchange.response = Some(response);
        stage
    }

    #[test]
    fn answers_tell_failure_from_success() {
        for (status, found) in [
            (200, Some(false)),
            (401, Some(true)),
            (403, Some(true)),
            (423, Some(true)),
            (400, None),
            (500, None),
        ] {
            assert_eq!(failed(&post(status)), found, "{status}");
        }
        assert_eq!(failed(&post(422).account("alice")), Some(true));
        assert_eq!(failed(&Stage::to("GET", "/login").status(200)), None);
        assert_eq!(failed(&Stage::to("GET", "/login").status(401).account("alice")), Some(true));
    }

    #[test]
    fn redirects_back_or_to_an_error_are_failures() {
        assert_eq!(failed(&redirect("/login?Error", true)), Some(true));
        assert_eq!(failed(&redirect("https://h/Login#x", true)), Some(true));
        assert_eq!(failed(&redirect("/home", true)), Some(false));
        assert_eq!(failed(&redirect("/home", false)), None);
    }

    #[test]
    fn token_routes_count_with_an_account_and_no_refresh() {
        assert_eq!(read(&post(401), RouteKind::Token), None);
        assert!(read(&post(401).account("alice"), RouteKind::Token).is_some());
        let mut refresh = post(401).account("app");
        refresh.exchange.body.get_or_insert_default().refresh_token = Some(1);
        assert_eq!(read(&refresh, RouteKind::Token), None);
        assert_eq!(read(&post(401).account("alice"), RouteKind::Plain), None);
    }

    #[test]
    fn accounts_are_one_whatever_their_case() {
        let account = |name| read(&post(401).account(name), RouteKind::Login).unwrap().account;
        assert_eq!(account("Alice@Example.COM "), account("alice@example.com"));
        assert_ne!(account("alice"), account("alicf"));
    }
}
