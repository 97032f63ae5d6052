//! Where servers are that are no web servers: `HOST:PORT`, or a URL of their own scheme; never with a secret in it.

use std::net::IpAddr;

use reqwest::Url;

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::word::{Wrong, excerpt};
use crate::sink::wire::Place;

/// Reads a URL of one of these schemes, each with its usual port.
pub(super) fn url(text: &str, schemes: &[(&str, u16)], hint: &str) -> Result<(Url, Place), Wrong> {
    let hint = format!("write {hint}");
    let Ok(url) = Url::parse(text) else {
        return Err(Wrong { secret: true, ..Wrong::new("is no URL") }.hint(hint));
    };
    if !url.username().is_empty() || url.password().is_some() {
        let wrong = Wrong { secret: true, ..Wrong::new("holds a user name or password") };
        return Err(wrong.hint("write them into keys of their own, secrets as env:NAME"));
    }
    let Some((_, usual)) = schemes.iter().find(|(scheme, _)| *scheme == url.scheme()) else {
        let names: Vec<String> = schemes.iter().map(|(scheme, _)| format!("{scheme}://")).collect();
        // `me:secret@host` is a URL of the scheme `me`: nothing of it is repeated.
        let wrong = Wrong { secret: true, ..Wrong::new(format!("is not {}", names.join(" or "))) };
        return Err(wrong.hint(hint));
    };
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Wrong { secret: true, ..Wrong::new("has a query, which means nothing here") });
    }
    let nowhere = || Wrong::new(format!("is {}, without a host", excerpt(text))).hint(hint.clone());
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(nowhere)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let place = Place { host, port: url.port().unwrap_or(*usual) };
    Ok((url, place))
}

/// Warns that a secret would go over a network in the clear.
pub(super) fn warn_of_listeners(s: &mut Section<'_, '_>, key: &str, place: &Place) {
    if !is_here(&place.host) {
        let message = format!("`{key}` goes to {place} in the clear");
        let problem = Problem::warning(s.span_of(key), message).hint("use TLS, or a network that you trust");
        // Where a name is expected somebody may have written the secret.
        s.report(Problem { secret: true, ..problem });
    }
}

/// Whether what is sent there stays on this host.
pub(super) fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_holds_no_secret() {
        let read = |text| url(text, &[("nats", 4222)], "nats://HOST");
        assert_eq!(read("nats://h").unwrap().1, Place { host: "h".into(), port: 4222 });
        for bad in ["nats://me:hunter2@h", "nats://hunter2@h", "me:hunter2@[", "nats://h?p=hunter2"] {
            let wrong = read(bad).unwrap_err();
            assert!(wrong.secret && !wrong.message.contains("hunter2"), "{bad}");
        }
        assert!(read("tls://h").is_err());
    }
}
