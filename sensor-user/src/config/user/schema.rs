//! The JSON Schema of rule files, for editors.

use serde_json::{Map, Value, json};

use crate::detect::user::field::{FIELDS, Type};

/// The schema.
#[must_use]
pub fn schema() -> Value {
    let length = json!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"});
    let severity = json!({"enum": ["low", "medium", "high", "critical"]});
    let doc = "A condition in CEL; `tokenscope rules fields` names the fields.";
    let condition = json!({"type": "string", "maxLength": 8192, "description": doc});
    let names: Vec<&str> = FIELDS.iter().map(|card| card.name).collect();
    let properties = json!({
        "id": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{1,62}[a-z0-9]$"},
        "title": {"type": "string"},
        "version": {"type": ["string", "number"]},
        "description": {"type": "string"},
        "enabled": {"type": "boolean"},
        "attack": {"type": "array", "items": {"type": "string", "pattern": "^T[0-9]{4}([.][0-9]{3})?$"}},
        "severity": {"anyOf": [severity, {
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "attempt": severity, "otherwise": severity, "accepted": severity,
                "low": condition, "medium": condition, "high": condition, "critical": condition,
            },
        }]},
        "confidence": {"type": "integer", "minimum": 0, "maximum": 100},
        "cooling": length,
        "when": condition,
        "exceptions": {"anyOf": [condition, {"type": "array", "maxItems": 100, "items": condition}]},
        "lists": lists(),
        "message": {
            "type": "string",
            "maxLength": 1024,
            "description": format!("Fields in braces: {}", names.join(", ")),
        },
        "correlate": correlate(&length, &condition),
        "actions": {"description": "Reserved."},
        "examples": examples(&length),
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Tokenscope user rule",
        "type": "object",
        "additionalProperties": false,
        "required": ["id", "title", "severity"],
        "properties": properties,
    })
}

fn lists() -> Value {
    let file = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["file"],
        "properties": {"file": {"type": "string"}},
    });
    json!({"type": "object", "additionalProperties": {"anyOf": [{"type": "array"}, file]}})
}

fn correlate(length: &Value, condition: &Value) -> Value {
    let threshold = json!({"type": "integer", "minimum": 0, "maximum": 1_000_000});
    let also = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["window"],
        "properties": {"window": length, "gt": threshold, "gte": threshold, "eq": threshold},
    });
    let fields = json!({"type": "array", "maxItems": 4, "items": {"type": "string"}});
    let properties = json!({
        "kind": {"enum": ["event_count", "value_count", "temporal", "temporal_ordered"]},
        "window": length,
        "group_by": {"anyOf": [{"type": "string"}, fields]},
        "groups": {"type": "integer", "minimum": 1, "maximum": 100_000},
        "field": {"type": "string"},
        "steps": {"type": "array", "minItems": 2, "maxItems": 8, "items": condition},
        "gt": threshold,
        "gte": threshold,
        "eq": threshold,
        "also": {"type": "array", "items": also},
    });
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["kind", "window"],
        "properties": properties,
    })
}

fn examples(length: &Value) -> Value {
    let properties = json!({
        "name": {"type": "string"},
        "fires": {"type": "boolean"},
        "first": {"type": "integer", "minimum": 1},
        "says": {"type": "string"},
        "exchanges": {"type": "array", "items": exchange(length)},
    });
    let one = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["fires", "exchanges"],
        "properties": properties,
    });
    json!({"type": "array", "maxItems": 100, "items": one})
}

fn exchange(length: &Value) -> Value {
    let mut properties = Map::new();
    for card in FIELDS {
        let mut one = match card.kind {
            Type::Bool => json!({"type": ["boolean", "null"]}),
            Type::Int => json!({"type": ["integer", "null"]}),
            Type::Text | Type::Address => json!({"type": ["string", "number", "null"]}),
            Type::Texts => json!({"type": ["array", "null"]}),
        };
        if let Some(object) = one.as_object_mut() {
            object.insert("description".into(), card.doc.into());
            if !card.words.is_empty() {
                object.remove("type");
                object.insert(
                    "enum".into(),
                    card.words.iter().map(|w| Value::from(*w)).chain([Value::Null]).collect(),
                );
            }
        }
        properties.insert(card.name.into(), one);
    }
    for name in ["request.headers", "response.headers"] {
        properties.insert(name.into(), json!({"type": "object"}));
    }
    properties.insert("repeat".into(), json!({"type": "integer", "minimum": 1, "maximum": 20_000}));
    for name in ["after", "every"] {
        properties.insert(name.into(), length.clone());
    }
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}
