//! Roles and scopes that claims grant, in the places where common issuers put them: `roles` (Entra ID, RFC 9068 section
//! 2.2.3), `role`, `realm_access.roles` (Keycloak), `scope` (RFC 8693 section 4.2), `scp` (Entra ID, Okta), `groups`.
//!
//! Not read: roles of single clients (`resource_access`), names of a vendor's own (`cognito:groups`, URLs).

use std::borrow::Cow;

use super::json::{self, Value};
use crate::token::jose::text::printable;

/// Most that are kept of one token. Roles come first, then scopes, then groups, of which directories have hundreds.
const MAX_GRANTS: usize = 32;

/// Most that are looked at in one place, so that a token of 16 KiB costs no more than an ordinary one.
const MAX_READ: usize = 256;

/// Longest name; a longer one is no name of a role.
const MAX_NAME: usize = 128;

/// Claims in the order of their weight.
#[derive(Debug, Default)]
pub(super) struct Grants<'p> {
    roles: Vec<Cow<'p, str>>,
    scopes: Vec<Cow<'p, str>>,
    groups: Vec<Cow<'p, str>>,
}

impl<'p> Grants<'p> {
    /// Looks at one claim.
    pub(super) fn see(&mut self, name: &str, value: &Value<'p>) {
        match name {
            "roles" | "role" => gather(value, &mut self.roles),
            "scope" | "scp" => gather(value, &mut self.scopes),
            "groups" => gather(value, &mut self.groups),
            "realm_access" => {
                if let Value::Object(text) = value {
                    json::members(text, &mut |name, value| {
                        if name == "roles" {
                            gather(&value, &mut self.roles);
                        }
                    });
                }
            }
            _ => {}
        }
    }

    /// All of them, upper case, sorted, each once.
    pub(super) fn all(&self) -> Box<[Box<str>]> {
        let mut all: Vec<Box<str>> = Vec::new();
        for name in self.roles.iter().chain(&self.scopes).chain(&self.groups) {
            if all.len() >= MAX_GRANTS {
                break;
            }
            let name = printable(&name.to_uppercase());
            if !all.contains(&name) {
                all.push(name);
            }
        }
        all.sort_unstable();
        all.into_boxed_slice()
    }
}

/// A string of words, or an array of strings, whichever the claim is said to be: issuers mix them up.
fn gather<'p>(value: &Value<'p>, out: &mut Vec<Cow<'p, str>>) {
    match value {
        Value::Text(Cow::Borrowed(words)) => {
            words.split_ascii_whitespace().for_each(|word| add(Cow::Borrowed(word), out));
        }
        Value::Text(Cow::Owned(words)) => {
            words.split_ascii_whitespace().for_each(|word| add(Cow::Owned(word.to_owned()), out));
        }
        Value::Array(text) => {
            json::elements(text, &mut |element| {
                if let Value::Text(name) = element {
                    add(name, out);
                }
            });
        }
        _ => {}
    }
}

fn add<'p>(name: Cow<'p, str>, out: &mut Vec<Cow<'p, str>>) {
    if !name.is_empty() && name.len() <= MAX_NAME && out.len() < MAX_READ {
        out.push(name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(claims: &str) -> Vec<String> {
        let mut grants = Grants::default();
        json::members(claims.as_bytes(), &mut |name, value| grants.see(&name, &value));
        grants.all().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reads_every_place_in_every_shape() {
        assert_eq!(of(r#"{"scope":"orders:read  openid"}"#), ["OPENID", "ORDERS:READ"]);
        assert_eq!(of(r#"{"scp":["a","b",5,"a"]}"#), ["A", "B"]);
        assert_eq!(of(r#"{"roles":["user"],"role":"admin","groups":["g"]}"#), ["ADMIN", "G", "USER"]);
        assert_eq!(of(r#"{"realm_access":{"roles":["offline_access"]}}"#), ["OFFLINE_ACCESS"]);
        assert_eq!(of(r#"{"scope":"a\u0020b"}"#), ["A", "B"]);
        for nothing in
            [r#"{"roles":5}"#, r#"{"roles":{"a":1}}"#, r#"{"realm_access":[1]}"#, r#"{"scope":null}"#]
        {
            assert!(of(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn groups_cannot_push_out_roles() {
        let groups = (0..500).map(|n| format!("\"a{n}\"")).collect::<Vec<_>>().join(",");
        let all = of(&format!(r#"{{"groups":[{groups}],"scope":"s","roles":["ZZZ"]}}"#));
        assert_eq!(all.len(), MAX_GRANTS);
        assert!(all.contains(&"ZZZ".to_owned()) && all.contains(&"S".to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_bounded_sorted_and_tame(names in proptest::collection::vec(any::<String>(), 0..60)) {
            let claims = serde_json::json!({ "roles": names, "scope": names.join(" ") }).to_string();
            let all = of(&claims);
            prop_assert!(all.len() <= MAX_GRANTS && all.is_sorted());
            prop_assert!(all.iter().all(|name| name.len() <= crate::token::facts::MAX_TEXT));
        }
    }
}
