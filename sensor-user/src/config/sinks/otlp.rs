//! Keys of a sink of type `otlp`.

use zeroize::Zeroizing;

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::sinks::tls::client;
use crate::config::sinks::{free, http};
use crate::config::tokens::Resolver;
use crate::sink::http::Text;
use crate::sink::otlp::Settings;
use crate::token::settings::Secret;

/// Reads what is particular to it.
pub(super) fn read(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Settings> {
    let doc = "Where the collector takes OTLP over HTTP, such as http://127.0.0.1:4318; env:NAME or file:PATH if it is a \
               secret. Without a path, /v1/logs is added.";
    let url = http::receiver(s, None, doc, resolver);
    let headers = http::headers(s, resolver);
    let doc = "Attributes of the resource besides service.name and host.name.";
    let resource = free::map(s, "resource", resolver, doc, |_name| false);
    let mut attributes = Vec::new();
    for (name, value) in resource {
        if let Text::Plain(value) = value {
            attributes.push((name, value));
        } else {
            s.report(Problem::error(
                s.span_of("resource"),
                "`resource` is shown to everybody, so it has no secrets",
            ));
        }
    }
    let gzip = s.word("gzip", true, "Whether bodies are compressed.");
    let auth = http::auth(s, "Bearer", None, false, resolver);
    let client = client(s, resolver);
    let url = Secret(Zeroizing::new(url?.as_bytes().to_vec()));
    Some(Settings { client, url, auth: auth?, headers, resource: attributes, gzip })
}
