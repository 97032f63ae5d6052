//! Text for a shell: a separator, a command and what it works on.

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

pub(super) fn is_command(text: &str) -> bool {
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
