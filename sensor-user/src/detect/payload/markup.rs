//! Text for browsers, template engines and loggers.

/// `${jndi:`, also taken apart as in `${${lower:j}ndi:` and `${${::-j}${::-n}di:`.
pub(super) fn is_lookup(text: &str) -> bool {
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

pub(super) fn is_script(text: &str) -> bool {
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

pub(super) fn is_template(text: &str) -> bool {
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
