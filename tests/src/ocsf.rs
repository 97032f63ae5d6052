//! A validator for OCSF events, against the compiled schema of the classes that we emit.
//!
//! It checks what the schema says by machine: required attributes, no attribute that the class or object does not have,
//! attributes of a profile only when `metadata.profiles` names it, types with their ranges and lengths, enumerations,
//! arrays, nested objects, `at_least_one` and `just_one`, and that `type_uid` is class and activity. It does not match
//! the schema's regular expressions: addresses are parsed instead, other patterns are not checked.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Map, Value};

/// The compiled schema.
#[derive(Debug)]
pub struct Schema(Value);

/// One thing that is wrong, with its place: `finding_info.uid: missing, but required`.
pub type Problem = String;

impl Schema {
    /// Finds the schema: in the directory named by `TOKENSCOPE_SHARED`, or in `../shared` beside the workspace. Without
    /// it a loud line is printed and there is nothing to check against.
    #[must_use]
    pub fn find() -> Option<Self> {
        let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
        let shared = std::env::var_os("TOKENSCOPE_SHARED").map_or(beside, PathBuf::from);
        let path = shared.join("data/ocsf-1.8.0-subset.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            println!("SKIPPED: no OCSF schema at {}: events are not validated", path.display());
            return None;
        };
        match serde_json::from_str(&text) {
            Ok(schema) => Some(Self(schema)),
            Err(error) => {
                println!("SKIPPED: {} is not JSON: {error}", path.display());
                None
            }
        }
    }

    /// Everything that is wrong with an event; nothing if it is valid.
    #[must_use]
    pub fn problems(&self, event: &Value) -> Vec<Problem> {
        let mut problems = Vec::new();
        let class_uid = &event["class_uid"];
        let classes = self.0["classes"].as_object();
        let class = classes.into_iter().flatten().find(|(_, class)| &class["uid"] == class_uid);
        let (Some((_, class)), Some(members)) = (class, event.as_object()) else {
            return vec![format!("class_uid: {class_uid} is no class of the schema")];
        };
        let profiles = event["metadata"]["profiles"].as_array().into_iter().flatten();
        let profiles: BTreeSet<&str> = profiles.filter_map(Value::as_str).collect();
        let known: BTreeSet<&str> =
            class["profiles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for profile in profiles.difference(&known) {
            problems.push(format!("metadata.profiles: the class has no profile {profile}"));
        }
        let check = Check { schema: &self.0, profiles: &profiles };
        check.members("", class, members, &mut problems);
        let type_uid = class_uid.as_u64().unwrap_or(0) * 100 + event["activity_id"].as_u64().unwrap_or(0);
        if event["type_uid"].as_u64() != Some(type_uid) {
            problems.push(format!("type_uid: {} is not {type_uid}", event["type_uid"]));
        }
        problems
    }
}

struct Check<'a> {
    schema: &'a Value,
    profiles: &'a BTreeSet<&'a str>,
}

impl Check<'_> {
    /// Checks the members of an event or object against the attributes of its class or object type.
    fn members(&self, at: &str, kind: &Value, members: &Map<String, Value>, problems: &mut Vec<Problem>) {
        let Some(attributes) = kind["attributes"].as_object() else { return };
        for (name, value) in members {
            let place = format!("{at}{name}");
            match attributes.get(name) {
                None => problems.push(format!("{place}: no such attribute")),
                Some(attribute) if !self.applies(attribute) => {
                    problems.push(format!(
                        "{place}: belongs to profile {}, which is not named",
                        attribute["profile"]
                    ));
                }
                Some(attribute) => self.attribute(&place, attribute, value, problems),
            }
        }
        for (name, attribute) in attributes {
            let required = attribute["requirement"] == "required" && self.applies(attribute);
            if required && !members.contains_key(name) {
                problems.push(format!("{at}{name}: missing, but required"));
            }
        }
        let present = |list: &Value| {
            let names = list.as_array().into_iter().flatten().filter_map(Value::as_str);
            names.filter(|name| members.contains_key(*name)).count()
        };
        for (constraint, wrong) in [("at_least_one", 0..1), ("just_one", 0..1), ("just_one", 2..usize::MAX)] {
            let list = &kind["constraints"][constraint];
            if list.is_array() && wrong.contains(&present(list)) {
                problems.push(format!("{at}: {constraint} of {list}"));
            }
        }
    }

    fn applies(&self, attribute: &Value) -> bool {
        attribute["profile"].as_str().is_none_or(|profile| self.profiles.contains(profile))
    }

    fn attribute(&self, at: &str, attribute: &Value, value: &Value, problems: &mut Vec<Problem>) {
        if attribute["is_array"] != true {
            return self.value(at, attribute, value, problems);
        }
        match value.as_array() {
            None => problems.push(format!("{at}: not an array")),
            Some(items) => {
                for (number, item) in items.iter().enumerate() {
                    self.value(&format!("{at}[{number}]"), attribute, item, problems);
                }
            }
        }
    }

    fn value(&self, at: &str, attribute: &Value, value: &Value, problems: &mut Vec<Problem>) {
        let type_name = attribute["type"].as_str().unwrap_or_default();
        let object = &self.schema["objects"][type_name];
        if object.is_object() {
            let Some(members) = value.as_object() else {
                return problems.push(format!("{at}: not an object"));
            };
            // The empty object type takes anything: `unmapped`.
            if object["attributes"].as_object().is_some_and(|a| !a.is_empty()) {
                self.members(&format!("{at}."), object, members, problems);
            }
            return;
        }
        if !self.schema["types"][type_name].is_object() {
            return problems.push(format!("{at}: the schema knows no type {type_name}"));
        }
        if !self.fits(type_name, value) {
            problems.push(format!("{at}: {value} is no {type_name}"));
        }
        if let Some(allowed) = attribute["enum"].as_object() {
            let word = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if !allowed.contains_key(&word) {
                problems.push(format!("{at}: {word} is not in the enumeration"));
            }
        }
    }

    /// Whether a value is of a scalar type. Types name the one they refine: `port_t` is an `integer_t` with a range.
    fn fits(&self, type_name: &str, value: &Value) -> bool {
        let kind = &self.schema["types"][type_name];
        let length_fits = match (kind["max_len"].as_u64(), value.as_str()) {
            (Some(max), Some(text)) => text.chars().count() as u64 <= max,
            _ => true,
        };
        let range_fits = match (kind["range"].as_array().map(Vec::as_slice), value.as_i64()) {
            (Some([low, high]), Some(n)) => low.as_i64() <= Some(n) && Some(n) <= high.as_i64(),
            _ => true,
        };
        let base_fits = match type_name {
            "boolean_t" => value.is_boolean(),
            "integer_t" => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            "long_t" => value.is_i64() || value.as_u64().is_some_and(|n| i64::try_from(n).is_ok()),
            "float_t" => value.is_number(),
            "string_t" => value.is_string(),
            "json_t" => true,
            "ip_t" => value.as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok()),
            "port_t" => value.as_u64().is_some_and(|n| u16::try_from(n).is_ok()),
            _ => kind["type"].as_str().is_some_and(|base| self.fits(base, value)),
        };
        base_fits && length_fits && range_fits
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn least() -> Value {
        json!({
            "activity_id": 1, "category_uid": 2, "class_uid": 2004, "type_uid": 200_401, "severity_id": 4, "time": 1,
            "metadata": {"version": "1.8.0", "product": {"name": "x"}},
            "finding_info": {"uid": "1"},
        })
    }

    fn problems_with(change: impl Fn(&mut Value)) -> Option<Vec<Problem>> {
        let mut event = least();
        change(&mut event);
        Some(Schema::find()?.problems(&event))
    }

    #[test]
    fn takes_the_least_event() {
        assert!(problems_with(|_| ()).is_none_or(|p| p.is_empty()));
    }

    #[test]
    fn finds_each_kind_of_fault() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 11] = [
            (|e| drop(e["finding_info"].as_object_mut().unwrap().remove("uid")), "finding_info.uid: missing"),
            (|e| e["nonsense"] = json!(1), "nonsense: no such attribute"),
            (|e| e["finding_info"]["nonsense"] = json!(1), "finding_info.nonsense: no such attribute"),
            (|e| e["risk_score"] = json!(1), "risk_score: belongs to profile"),
            (|e| e["severity_id"] = json!(44), "severity_id: 44 is not in the enumeration"),
            (|e| e["time"] = json!("now"), "time: \"now\" is no timestamp_t"),
            (|e| e["evidences"] = json!({}), "evidences: not an array"),
            (
                |e| e["evidences"] = json!([{"src_endpoint": {"name": "a", "ip": "10.0.0.256"}}]),
                "evidences[0].src_endpoint.ip",
            ),
            (
                |e| e["evidences"] = json!([{"src_endpoint": {"name": "a", "port": 70_000}}]),
                "evidences[0].src_endpoint.port",
            ),
            (|e| e["metadata"]["product"] = json!({"lang": "en"}), "at_least_one"),
            (|e| e["type_uid"] = json!(200_402), "type_uid: 200402 is not 200401"),
        ];
        for (change, expected) in cases {
            let Some(problems) = problems_with(change) else { return };
            assert!(problems.iter().any(|p| p.contains(expected)), "{expected}: {problems:?}");
        }
    }

    #[test]
    fn refuses_unknown_classes() {
        assert!(problems_with(|e| e["class_uid"] = json!(1)).is_none_or(|p| p.len() == 1));
    }
}
