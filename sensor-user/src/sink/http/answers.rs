//! What receivers say in the body of an answer whose status is good. Some refuse there.

use serde_json::Value;

use crate::sink::Words;
use crate::sink::exchange::{Answer, Verdict};

/// The protocol of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Says {
    /// Everything by its status.
    #[default]
    Status,
    /// Elasticsearch and OpenSearch: an item for each event.
    Bulk,
    /// Splunk: `code`, 0 if all is well; what only speaks its protocol may say nothing.
    Splunk,
    /// ClickHouse: an exception's number in the head, or its text in the body, even of a 200.
    ClickHouse,
    /// Slack and alike: `ok`, or JSON with `ok`; connectors of Teams: a text about a failed delivery.
    Chat,
    /// MISP: what is there already was taken before.
    Misp,
}

/// Numbers of ClickHouse's exceptions that are about the data: cannot parse this, incorrect data, type mismatch.
const DATA: [u32; 13] = [6, 25, 26, 27, 33, 38, 41, 53, 69, 72, 117, 130, 441];

impl Says {
    /// What an answer about `events` events means.
    pub(super) fn judge(self, answer: &Answer, events: usize) -> Verdict {
        match self {
            Self::ClickHouse => return clickhouse(answer),
            Self::Misp if String::from_utf8_lossy(&answer.body).contains("already exists") => {
                return Verdict::taken(answer.tell());
            }
            _ => {}
        }
        if let Some(verdict) = answer.judge() {
            return verdict;
        }
        match self {
            Self::Status | Self::ClickHouse | Self::Misp => Verdict::taken(answer.tell()),
            Self::Bulk => bulk(answer, events),
            Self::Splunk => match answer.json().and_then(|said| said.get("code")?.as_u64()) {
                None | Some(0) => Verdict::taken(answer.tell()),
                Some(_) => Verdict::later(format!("{}, which is no success", answer.tell())),
            },
            Self::Chat => chat(answer),
        }
    }
}

/// One item an event, in order. Newer than what came (409) is as good as taken.
fn bulk(answer: &Answer, events: usize) -> Verdict {
    let Some(said) = answer.json() else {
        return Verdict::later("the answer about the items is cut, too long or no JSON");
    };
    let items = said.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if items.len() != events {
        return Verdict::later(format!("the answer has {} items for {events} events", items.len()));
    }
    let mut refused = Vec::new();
    for (place, item) in items.iter().enumerate() {
        // One member, named like the action.
        let said = item.as_object().and_then(|item| item.values().next());
        let status = said.and_then(|said| said.get("status")?.as_u64()).unwrap_or(0);
        let why = || {
            let error = said.and_then(|said| said.get("error")).map(Value::to_string);
            Words::new(&format!("answered {status}: {}", error.unwrap_or_default()))
        };
        match status {
            200..=299 | 409 => {}
            // Who may write is up to the operator, and so is an index that is missing.
            401 | 403 | 404 | 408 | 429 | 500.. => return Verdict::later(why().as_str()),
            400..=499 => refused.push((place, why())),
            _ => return Verdict::later("an item of the answer has no status"),
        }
    }
    Verdict::Taken { answer: Words::new(&format!("{} of {events} taken", events - refused.len())), refused }
}

fn clickhouse(answer: &Answer) -> Verdict {
    let body = String::from_utf8_lossy(&answer.body);
    let numbered =
        answer.headers.get("X-ClickHouse-Exception-Code").and_then(|code| code.to_str().ok()?.parse().ok());
    // `Code: 27, e.displayText() = ...` and, newer, `Code: 27. DB::Exception: ...`.
    let told = body.find("Code: ").and_then(|at| {
        let digits = body.get(at + 6..)?;
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits.get(..end)?.parse().ok()
    });
    let exception = numbered.or_else(|| told.filter(|_: &u32| body.contains("Exception")));
    match exception {
        // A column that is missing is not the event's fault.
        Some(code) if DATA.contains(&code) && !body.contains("Unknown field") => {
            Verdict::Refused(answer.tell())
        }
        Some(_) if answer.judge().is_none() || answer.status < 500 => Verdict::later(answer.tell().as_str()),
        // An exception may be what is missing.
        None if !answer.whole && answer.judge().is_none() => Verdict::later("the answer is cut"),
        _ => answer.judge().unwrap_or_else(|| Verdict::taken(answer.tell())),
    }
}

fn chat(answer: &Answer) -> Verdict {
    let body = String::from_utf8_lossy(&answer.body);
    let failed = body.contains("delivery failed")
        || answer.json().is_some_and(|said| said.get("ok") == Some(&false.into()));
    if failed {
        return Verdict::later(format!("{}, which is no success", answer.tell()));
    }
    Verdict::taken(answer.tell())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderMap;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, headers: HeaderMap::new(), body: body.into(), whole: true, after: None }
    }

    fn later(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Later { .. })
    }

    #[test]
    fn bulk_items_are_judged_one_by_one() {
        let body = r#"{"took":3,"errors":true,"items":[
            {"index":{"_id":"a","status":201}},
            {"index":{"_id":"b","status":400,"error":{"type":"mapper_parsing_exception","reason":"x"}}},
            {"index":{"_id":"c","status":409,"error":{"type":"version_conflict_engine_exception"}}}]}"#;
        let Verdict::Taken { refused, .. } = Says::Bulk.judge(&answer(200, body), 3) else { panic!() };
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].0, 1);
        assert!(refused[0].1.as_str().contains("mapper_parsing_exception"));
        for status in [429, 500, 503, 403] {
            let body = body.replace("\"status\":400", &format!("\"status\":{status}"));
            assert!(later(&Says::Bulk.judge(&answer(200, &body), 3)), "{status}");
        }
        assert!(later(&Says::Bulk.judge(&answer(200, body), 4)), "it speaks of other events");
        assert!(later(&Says::Bulk.judge(&answer(200, "<html>"), 1)));
        let cut = Answer { whole: false, ..answer(200, body) };
        assert!(later(&Says::Bulk.judge(&cut, 3)));
    }

    #[test]
    fn clickhouse_can_fail_with_a_good_status() {
        let judge = |status, body: &str| Says::ClickHouse.judge(&answer(status, body), 1);
        assert_eq!(judge(200, ""), Verdict::taken("answered 200"));
        let parse = "Code: 27, e.displayText() = DB::Exception: Cannot parse input: expected \" before: x";
        assert!(matches!(judge(500, parse), Verdict::Refused(_)));
        assert!(matches!(judge(200, parse), Verdict::Refused(_)));
        assert!(later(&judge(
            404,
            "Code: 60. DB::Exception: Table default.x does not exist. (UNKNOWN_TABLE)"
        )));
        assert!(later(&judge(200, "Code: 241. DB::Exception: Memory limit exceeded")));
        assert!(later(&judge(
            500,
            "Code: 117, e.displayText() = DB::Exception: Unknown field found while parsing"
        )));
        let mut numbered = answer(200, "");
        numbered.headers.insert("X-ClickHouse-Exception-Code", "117".parse().unwrap());
        assert!(matches!(Says::ClickHouse.judge(&numbered, 1), Verdict::Refused(_)));
    }

    #[test]
    fn chats_and_others_say_no_in_the_body() {
        assert_eq!(Says::Chat.judge(&answer(200, "ok"), 1), Verdict::taken("answered 200: ok"));
        assert!(later(&Says::Chat.judge(&answer(200, r#"{"ok":false,"error":"channel_not_found"}"#), 1)));
        assert!(later(&Says::Chat.judge(&answer(200, "Webhook message delivery failed with error: 429"), 1)));
        assert!(matches!(
            Says::Splunk.judge(&answer(200, r#"{"text":"Success","code":0}"#), 1),
            Verdict::Taken { .. }
        ));
        assert!(later(&Says::Splunk.judge(&answer(200, r#"{"text":"Server is busy","code":9}"#), 1)));
        assert!(matches!(
            Says::Splunk.judge(&answer(400, r#"{"text":"Invalid data format","code":6}"#), 1),
            Verdict::Refused(_)
        ));
        assert!(matches!(Says::Misp.judge(&answer(403, "Event already exists"), 1), Verdict::Taken { .. }));
    }

    proptest! {
        #[test]
        fn whatever_is_answered_there_is_a_verdict(status in 100_u16..1000, body in prop::collection::vec(any::<u8>(), 0..200), whole: bool, events in 1_usize..5) {
            for says in [Says::Status, Says::Bulk, Says::Splunk, Says::ClickHouse, Says::Chat, Says::Misp] {
                let answer = Answer { status, headers: HeaderMap::new(), body: body.clone(), whole, after: None };
                if let Verdict::Taken { refused, .. } = says.judge(&answer, events) {
                    prop_assert!(refused.iter().all(|(place, _)| *place < events));
                }
            }
        }
    }
}
