//! Text for a database: what closes a value and goes on as SQL.

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

pub(super) fn is_sql(text: &str) -> bool {
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
