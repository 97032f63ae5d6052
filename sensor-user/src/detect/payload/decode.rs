//! What encoded text stands for, however often it was encoded.

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
