//! What is made of an API Activity: the compact line, and the Elastic Common Schema.
//!
//! `time METHOD route status  principal  client -> server  latency  bytes  verdict tok=fingerprint`
//!
//! They are made of the object alone, so that a reader far from the sensor prints the same.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::capture::Time;
use crate::detect::text;
use crate::render::{ecs, shown};

/// Appends the compact line of an API Activity. What is missing is a dash; no control character reaches it.
pub fn line(event: &Value, colour: bool, out: &mut String) {
    let time = event.get("time").and_then(Value::as_u64).unwrap_or_default();
    out.push_str(&shown::timestamp(Time(time.saturating_mul(1_000_000))));
    out.push(' ');
    plain(text_at(event, "/api/operation").unwrap_or("-"), out);
    out.push(' ');
    match event.pointer("/http_response/code").and_then(Value::as_u64) {
        Some(code) if colour => _ = write!(out, "{}{code}\x1b[0m", paint(code)),
        Some(code) => _ = write!(out, "{code}"),
        None => out.push('-'),
    }
    out.push_str("  ");
    out.push_str(&who(event).unwrap_or_else(|| "-".to_owned()));
    out.push_str("  ");
    plain(text_at(event, "/src_endpoint/ip").unwrap_or("-"), out);
    out.push_str(" -> ");
    plain(text_at(event, "/dst_endpoint/name").unwrap_or("-"), out);
    out.push_str("  ");
    match event.pointer("/unmapped/latency_us").and_then(Value::as_u64) {
        Some(us) => _ = write!(out, "{}.{}ms", us / 1000, us % 1000 / 100),
        None => out.push('-'),
    }
    out.push_str("  ");
    match event.pointer("/unmapped/response_bytes").and_then(Value::as_u64) {
        Some(bytes) => _ = write!(out, "{bytes}B"),
        None => out.push('-'),
    }
    out.push_str("  ");
    plain(text_at(event, "/unmapped/verdict").unwrap_or("-"), out);
    out.push_str(" tok=");
    let token = text_at(event, "/actor/session/uid");
    plain(token.map_or("-", |token| token.get(..16).unwrap_or(token)), out);
    out.push('\n');
}

/// The principal of an API Activity as lines name it: `alice@idp`, `alice?` where it is only a claim.
fn who(event: &Value) -> Option<String> {
    let verified = event.pointer("/unmapped/verified").and_then(Value::as_bool) == Some(true);
    Some(shown::name(text_at(event, "/actor/user/uid")?, text_at(event, "/actor/session/issuer"), verified))
}

/// The API Activity in the Elastic Common Schema. What that has no field for is under `tokenscope`.
#[must_use]
pub fn ecs(event: &Value) -> Value {
    let at = |pointer: &str| event.pointer(pointer).cloned().unwrap_or_default();
    let time = event.get("time").and_then(Value::as_u64).unwrap_or_default();
    let ns = event.pointer("/unmapped/latency_us").and_then(Value::as_u64).map(|us| us.saturating_mul(1_000));
    let outcome = match event.get("status_id").and_then(Value::as_u64) {
        Some(1) => "success",
        Some(2) => "failure",
        _ => "unknown",
    };
    without_nulls(json!({
        "@timestamp": shown::timestamp_ms(time),
        "ecs": {"version": ecs::VERSION},
        "event": {
            "kind": "event", "category": ["web"], "type": ["access"], "module": "tokenscope",
            "dataset": "tokenscope.exchanges", "action": at("/api/operation"), "outcome": outcome, "duration": ns,
        },
        "user": {"id": at("/actor/user/uid")},
        "source": {"ip": at("/src_endpoint/ip"), "port": at("/src_endpoint/port")},
        "destination": {"ip": at("/dst_endpoint/ip"), "port": at("/dst_endpoint/port")},
        "service": {"name": at("/dst_endpoint/name")},
        "http": {
            "request": {"method": at("/http_request/http_method"), "body": {"bytes": at("/unmapped/request_bytes")}},
            "response": {"status_code": at("/http_response/code"), "body": {"bytes": at("/unmapped/response_bytes")}},
        },
        "url": {"path": at("/http_request/url/path"), "domain": at("/http_request/url/domain")},
        "user_agent": {"original": at("/http_request/user_agent")},
        "tokenscope": {
            "token": at("/actor/session/uid"), "issuer": at("/actor/session/issuer"),
            "verified": at("/unmapped/verified"), "verdict": at("/unmapped/verdict"),
            "coverage": at("/unmapped/coverage"), "tokens": at("/unmapped/tokens"),
        },
    }))
}

/// The same without members that hold nothing.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, without_nulls(value)));
            let is_something =
                |value: &Value| !value.is_null() && value.as_object().is_none_or(|o| !o.is_empty());
            Value::Object(members.filter(|(_, value)| is_something(value)).collect())
        }
        other => other,
    }
}

fn text_at<'a>(event: &'a Value, pointer: &str) -> Option<&'a str> {
    event.pointer(pointer)?.as_str()
}

const fn paint(code: u64) -> &'static str {
    match code {
        500.. => "\x1b[1;31m",
        400..500 => "\x1b[33m",
        _ => "\x1b[32m",
    }
}

fn plain(words: &str, out: &mut String) {
    words.chars().for_each(|c| text::push_char(out, c));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::exchange::staging::{bare, exchanged};
    use crate::render::exchange::{ApiActivity, Exchanged};

    fn api(of: &Exchanged) -> Value {
        serde_json::to_value(ApiActivity::of(of)).unwrap()
    }

    fn compact(of: &Exchanged) -> String {
        let mut out = String::new();
        line(&api(of), false, &mut out);
        out
    }

    #[test]
    fn lines_have_the_promised_form() {
        assert_eq!(
            compact(&exchanged()),
            "2026-11-21T18:04:05.123Z GET /orders/{id} 200  alice@idp  10.0.3.7 -> shop/orders-7f9c  1.8ms  512B  \
             verified tok=2a2a2a2a2a2a2a2a\n"
        );
        assert_eq!(
            compact(&bare()),
            "2026-11-21T18:04:05.123Z GET /orders/{id} -  -  10.0.3.7 -> 10.0.0.1:8080  -  -  - tok=-\n"
        );
        assert!(!{
            let mut odd = String::new();
            line(&serde_json::json!({"api": {"operation": "\x1b[2J\n"}}), false, &mut odd);
            odd.trim_end_matches('\n').chars().any(text::is_unprintable)
        });
    }

    #[test]
    fn the_elastic_form_has_what_there_is_and_no_more() {
        let event = ecs(&api(&exchanged()));
        for (pointer, value) in [
            ("/@timestamp", Value::from("2026-11-21T18:04:05.123Z")),
            ("/event/action", "GET /orders/{id}".into()),
            ("/event/duration", 1_850_000.into()),
            ("/user/id", "alice".into()),
            ("/http/response/status_code", 200.into()),
            ("/tokenscope/verdict", "verified".into()),
        ] {
            assert_eq!(event.pointer(pointer), Some(&value), "{pointer}");
        }
        let event = ecs(&api(&bare())).to_string();
        assert!(!event.contains("null") && !event.contains("{}"), "{event}");
    }
}
