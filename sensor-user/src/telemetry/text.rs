//! Text that others chose, made safe for terminals and logs: file names, process names, lines of a configuration.
//!
//! It keeps one character for one, so that a caret under it stays in its place. What a token or a request says is made
//! printable by its own stage.

/// The text with every control, direction and invisible character replaced, each by one visible one.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
                '\u{fffd}'
            }
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_places_and_drops_powers() {
        assert_eq!(printable("a\tb\x1b[2J\u{202e}\u{200b}é"), "a b\u{fffd}[2J\u{fffd}\u{fffd}é");
    }
}
