//! Keys that sinks share which reach their server by TLS or through a proxy.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::tokens::Resolver;
use crate::config::word::{Word, Wrong, quote};
use crate::sink::client::{ClientSettings, Proxy, TlsSettings};

/// Reads the section `tls`.
pub(super) fn read(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> TlsSettings {
    s.section("tls", "Whom the sink trusts, and as whom it presents itself.", |s| {
        let doc = "A PEM file of authorities that are trusted besides those of the system.";
        let ca = path(s, "ca", resolver, doc);
        let only_ca = s.word("only_ca", false, "Trust those of `ca` only.");
        let doc = "A PEM file with the client's certificate, and those that it was issued by.";
        let cert = path(s, "cert", resolver, doc);
        let key = path(s, "key", resolver, "A PEM file with the key of `cert`.");
        if cert.is_some() != key.is_some() {
            let there = if cert.is_some() { "cert" } else { "key" };
            let problem = Problem::error(s.span_of(there), "`tls.cert` and `tls.key` need each other");
            s.report(problem);
        }
        if only_ca && ca.is_none() {
            let message = "`tls.only_ca` without `tls.ca` would trust nobody";
            s.report(Problem::error(s.span_of("only_ca"), message));
        }
        TlsSettings { ca, only_ca, cert, key }
    })
}

/// A path; a relative one starts where the configuration is.
fn path(s: &mut Section<'_, '_>, key: &str, resolver: Resolver<'_>, doc: &str) -> Option<PathBuf> {
    s.optional::<PathBuf>(key, doc).map(|path| absolute(path, resolver))
}

/// A relative path starts where the configuration is.
pub(super) fn absolute(path: PathBuf, resolver: Resolver<'_>) -> PathBuf {
    resolver.base.join(path)
}

/// Reads `tls` and `proxy` of a sink that speaks HTTP.
pub(super) fn client(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> ClientSettings {
    let tls = read(s, resolver);
    let doc = "A proxy, http://HOST:PORT; none for no proxy; system for what HTTPS_PROXY and NO_PROXY say.";
    let at = s.word("proxy", At(Proxy::System), doc).0;
    let user = s.optional::<String>("proxy_user", "Who asks the proxy.");
    let password = resolver.secret(s, "proxy_password", "And by which password, env:NAME or file:PATH.");
    let proxy = match at {
        Proxy::At { url, .. } => Proxy::At { url, user, password },
        other => {
            if user.is_some() || password.is_some() {
                let problem =
                    Problem::error(s.span_of("proxy_user"), "`proxy_user` needs a `proxy` with a URL");
                s.report(problem);
            }
            other
        }
    };
    ClientSettings { tls, proxy }
}

/// A URL of a receiver, without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Receiver(pub(super) String);

impl Word for Receiver {
    const WHAT: &'static str = "an http or https URL";
    const WHAT_MANY: &'static str = "http or https URLs";

    fn parse(text: &str) -> Result<Self, Wrong> {
        check_url(text).map(|()| Self(text.to_owned()))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

/// Whether it is a URL of a receiver. Its text is never repeated: paths may be secrets.
pub(super) fn check_url(text: &str) -> Result<(), Wrong> {
    let wrong = |why: &str| Wrong { secret: true, ..Wrong::new(why) };
    let Ok(url) = reqwest::Url::parse(text) else {
        return Err(wrong("is no URL").hint("write https://HOST/PATH"));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds a user name or password").hint("write them into `auth`"));
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("is neither http nor https"));
    }
    Ok(())
}

/// Warns of what anybody on the way can read.
pub(super) fn warn_if_clear(s: &mut Section<'_, '_>, key: &str, url: &str) {
    let Ok(url) = reqwest::Url::parse(url) else { return };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if url.scheme() == "http" && !here {
        let message = format!(
            "`{key}` is not encrypted: alerts, and what proves who sends them, can be read on the way"
        );
        s.report(Problem::warning(s.span_of(key), message).hint("use https").secret());
    }
}

struct At(Proxy);

impl Word for At {
    const WHAT: &'static str = "http://HOST:PORT, none or system";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let hint = "write http://HOST:PORT, none or system";
        match text {
            "system" => return Ok(Self(Proxy::System)),
            "none" => return Ok(Self(Proxy::None)),
            _ => {}
        }
        let Ok(url) = reqwest::Url::parse(text) else {
            return Err(Wrong { secret: true, ..Wrong::new("is no URL") }.hint(hint));
        };
        if !url.username().is_empty() || url.password().is_some() {
            let wrong = Wrong { secret: true, ..Wrong::new("holds a user name or password") };
            return Err(wrong.hint("write them into `proxy_user` and `proxy_password: env:NAME`"));
        }
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            // `me:secret@host` is a URL of the scheme `me`: nothing of it is repeated.
            return Err(Wrong { secret: true, ..Wrong::new("is neither http nor https") }.hint(hint));
        }
        Ok(Self(Proxy::At { url: text.to_owned(), user: None, password: None }))
    }

    fn show(&self) -> String {
        match &self.0 {
            Proxy::System => "system".to_owned(),
            Proxy::None => "none".to_owned(),
            Proxy::At { url, .. } => quote(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_url_without_secrets() {
        assert!(matches!(At::parse("none"), Ok(At(Proxy::None))));
        assert!(matches!(At::parse("http://p:3128"), Ok(At(Proxy::At { .. }))));
        for bad in ["p:3128", "socks5://p:1", "", "ftp://x"] {
            assert!(At::parse(bad).is_err(), "{bad}");
        }
        let wrong = At::parse("http://me:hunter2@p:3128").err().unwrap();
        assert!(wrong.secret && !wrong.message.contains("hunter2"));
    }
}
