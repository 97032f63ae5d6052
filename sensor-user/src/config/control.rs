//! The section `control`: where the running sensor can be asked, and by whom.

use std::path::{Path, PathBuf};

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::tokens::Resolver;
use crate::config::word::{Listen as Address, Word, Wrong};
use crate::control::settings::{DEFAULT_SOCKET, Listen, Settings, Tls};

/// Shortest token, in bytes: 128 bits of a random one in base64 are 22 characters, in hex 32.
const MIN_TOKEN: usize = 16;

/// Reads the section. `base` is where relative paths start.
pub(super) fn read(s: &mut Section<'_, '_>, base: &Path, resolver: Resolver<'_>) -> Settings {
    let doc = "The Unix socket that `tail`, `observe` and `top` read, mode 0600: a path, or off.";
    let socket = s.word("socket", Socket(Some(DEFAULT_SOCKET.into())), doc).0.map(|path| base.join(path));
    let doc = "The same over TCP: ADDRESS:PORT, or off. It needs `token`, or `tls` with `client_ca`.";
    let address = s.word("listen", Address(None), doc).0;
    let doc = "What clients of `listen` must show as Authorization: Bearer; env:NAME or file:PATH, at least 16 bytes.";
    let token = resolver.secret(s, "token", doc);
    let doc = "Encryption of `listen`. Files are read when the sensor starts.";
    let tls = s.section("tls", doc, |s| read_tls(s, base));
    if token.as_ref().is_some_and(|token| token.0.len() < MIN_TOKEN) {
        let message = format!("`control.token` has fewer than {MIN_TOKEN} bytes");
        s.report(Problem::error(s.span_of("token"), message).hint("openssl rand -hex 16"));
    }
    let listen = address.map(|address| Listen { address, token, tls });
    if let Some(listen) = &listen {
        check(s, listen);
    }
    Settings { socket, listen }
}

fn read_tls(s: &mut Section<'_, '_>, base: &Path) -> Option<Tls> {
    let file = |path: PathBuf| base.join(path);
    let cert =
        s.optional::<PathBuf>("cert", "The server's certificate in PEM, and those between it and its CA.");
    let key = s.optional::<PathBuf>("key", "The key of `cert` in PEM.");
    let doc = "The CA in PEM that must have signed the certificates of clients. Left out: clients need none.";
    let client_ca = s.optional::<PathBuf>("client_ca", doc);
    match (cert, key) {
        (Some(cert), Some(key)) => {
            Some(Tls { cert: file(cert), key: file(key), client_ca: client_ca.map(file) })
        }
        (None, None) if client_ca.is_none() => None,
        _ => {
            let place = ["cert", "key", "client_ca"].into_iter().find(|key| s.is_set(key)).unwrap_or("cert");
            let problem = Problem::error(s.span_of(place), "`control.tls` needs both `cert` and `key`");
            s.report(problem);
            None
        }
    }
}

fn check(s: &mut Section<'_, '_>, listen: &Listen) {
    let is_mutual = listen.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if !s.is_set("token") && !is_mutual {
        let message = "`control.listen` would answer everybody";
        let problem = Problem::error(s.span_of("listen"), message);
        s.report(problem.hint("add `token: env:NAME`, or `tls` with `client_ca`"));
    } else if listen.tls.is_none() && !listen.address.ip().is_loopback() {
        let message = "`control.listen` shows the token and the alerts to the network";
        let problem = Problem::warning(s.span_of("listen"), message);
        s.report(problem.hint("add `tls: {cert: ..., key: ...}`"));
    }
}

/// A socket's path, or off.
struct Socket(Option<PathBuf>);

impl Word for Socket {
    const WHAT: &'static str = "a path, or off";

    fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(Self((text != "off").then(|| PathBuf::from(text))))
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or_else(|| "off".to_owned(), Word::show)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Secrets, parse};

    const TOKEN: &str = "0123456789abcdef0123";

    fn load(text: &str) -> Result<Settings, String> {
        let environment = Environment::from([("T", TOKEN), ("SHORT", "hunter2")]);
        let cards = crate::cli::cards();
        let loaded = parse("test", text, Path::new("/etc/x"), &environment, cards, Secrets::Needed);
        loaded.map(|loaded| loaded.config.control).map_err(|report| report.render(false))
    }

    #[test]
    fn there_is_a_socket_and_no_port_unless_somebody_says_otherwise() {
        let settings = load("").unwrap();
        assert_eq!(settings, Settings { socket: Some(DEFAULT_SOCKET.into()), listen: None });
        assert_eq!(load("control: {socket: off}").unwrap().socket, None);
        assert_eq!(load("control: {socket: s}").unwrap().socket, Some("/etc/x/s".into()));
    }

    #[test]
    fn a_port_asks_who_is_there() {
        let listen = |rest: &str| load(&format!("control: {{listen: '127.0.0.1:9465'{rest}}}"));
        assert!(listen("").unwrap_err().contains("would answer everybody"));
        assert!(listen(", tls: {cert: c, key: k}").unwrap_err().contains("would answer everybody"));
        assert!(listen(", token: 'env:SHORT'").unwrap_err().contains("fewer than 16"));
        assert!(listen(", tls: {cert: c}, token: 'env:T'").unwrap_err().contains("both `cert` and `key`"));
        let settings = listen(", token: 'env:T'").unwrap().listen.unwrap();
        assert!(settings.token.is_some_and(|token| *token.0 == TOKEN.as_bytes()));
        let tls = listen(", tls: {cert: c, key: /k, client_ca: a}").unwrap().listen.unwrap().tls.unwrap();
        let expected = ("/etc/x/c".into(), "/k".into(), Some("/etc/x/a".into()));
        assert_eq!((tls.cert, tls.key, tls.client_ca), expected);
    }
}
