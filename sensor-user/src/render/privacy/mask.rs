//! What gives a person away in any text, by its form: e-mail addresses, telephone, card and account numbers, addresses.
//!
//! One mask is used everywhere, so that what is masked in two places can still be seen to be the same. It does not see
//! names; those are hidden by what the exchange says of itself.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::detect::text::{mask_email, mask_number};

/// What is masked in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masks {
    /// `a…@example.com`.
    pub email: bool,
    /// `…4567`.
    pub phone: bool,
    /// Card and account numbers: `…1111`, `DE…3000`.
    pub account: bool,
}

impl Masks {
    /// Everything.
    pub const ALL: Self = Self { email: true, phone: true, account: true };
    /// Nothing.
    pub const NONE: Self = Self { email: false, phone: false, account: false };
}

/// Keeps two octets of IPv4, two groups of IPv6.
#[must_use]
pub fn address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & 0xffff_0000)),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 96))),
    }
}

/// Masks people in any text.
#[must_use]
pub fn people(text: &str, masks: Masks) -> Cow<'_, str> {
    let mut out = Cow::Borrowed(text);
    if masks.email && text.contains('@') {
        out = replace(out, email);
    }
    // All that follows has eight digits at least.
    if text.bytes().filter(u8::is_ascii_digit).take(8).count() == 8 {
        if masks.phone {
            out = replace(out, phone);
        }
        if masks.account {
            out = replace(replace(out, card), iban);
        }
    }
    out
}

/// Masks people in a text of which the parts between `/` are names of things: a part that is nothing but a long number
/// is somebody's.
#[must_use]
pub fn segments(text: &str, masks: Masks) -> Cow<'_, str> {
    let out = people(text, masks);
    let number = |part: &str| {
        let phone = part.contains(['+', '-', '.']);
        mask_number(part).filter(|_| if phone { masks.phone } else { masks.account })
    };
    if out.split('/').all(|part| number(part).is_none()) {
        return out;
    }
    out.split('/')
        .map(|part| number(part).unwrap_or_else(|| part.to_owned()))
        .collect::<Vec<_>>()
        .join("/")
        .into()
}

/// Masks every address in a text but those of `known` servers.
#[must_use]
pub fn addresses<'t>(text: Cow<'t, str>, known: &[IpAddr]) -> Cow<'t, str> {
    if !text.bytes().any(|byte| matches!(byte, b'.' | b':')) {
        return text;
    }
    replace(text, |text, at| ip(text, at, known))
}

/// A place in a text: where it begins and ends, and what stands there instead.
type Found = (usize, usize, String);

/// Replaces whatever `find` finds from a place on, until it finds no more. Each find ends behind its beginning, so the
/// work is bounded by the text.
fn replace(text: Cow<'_, str>, find: impl Fn(&str, usize) -> Option<Found>) -> Cow<'_, str> {
    let mut out = String::new();
    let mut done = 0;
    while let Some((from, to, instead)) = find(&text, done).filter(|(from, to, _)| done <= *from && from < to)
    {
        out.push_str(text.get(done..from).unwrap_or_default());
        out.push_str(&instead);
        done = to;
    }
    if done == 0 {
        return text;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(out)
}

/// Whether a place is inside a word.
fn joins(text: &str, at: usize) -> bool {
    let before = text.get(..at).and_then(|part| part.chars().next_back());
    let after = text.get(at..).and_then(|part| part.chars().next());
    before.is_some_and(char::is_alphanumeric) && after.is_some_and(char::is_alphanumeric)
}

/// The next e-mail address: what may stand before and behind an `@` without quotes (RFC 5322 `dot-atom`), letters of
/// any script (RFC 6532).
fn email(text: &str, from: usize) -> Option<Found> {
    let is_local = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    // A `/` may be part of an address, but in what we show it parts segments; `=`, `?`, `&` and `'` part or quote values.
    let is_local = |c: char| is_local(c) && !"/=?&'`{}|".contains(c);
    let is_domain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.');
    let mut at = from;
    while let Some(found) = text.get(at..)?.find('@') {
        let sign = at + found;
        let start = text.get(from..sign)?.rfind(|c| !is_local(c));
        let start = start.map_or(from, |place| from + place + text.get(from + place..).map_or(1, first_len));
        let domain = text.get(sign + 1..)?;
        let end = sign + 1 + domain.find(|c| !is_domain(c)).unwrap_or(domain.len());
        let whole = text.get(start..end)?.trim_end_matches('.');
        if start < sign && sign + 1 < start + whole.len() {
            return Some((start, start + whole.len(), mask_email(whole)));
        }
        at = sign + 1;
    }
    None
}

fn first_len(text: &str) -> usize {
    text.chars().next().map_or(1, char::len_utf8)
}

/// A run of digits with single separators among them, from a digit on: its end, and its digits.
fn digits(text: &str, from: usize, separators: &[u8]) -> (usize, Vec<u8>) {
    let bytes = text.as_bytes();
    let (mut at, mut end, mut found) = (from, from, Vec::new());
    while let Some(byte) = bytes.get(at) {
        if byte.is_ascii_digit() {
            found.push(byte - b'0');
            end = at + 1;
        } else if !(separators.contains(byte) && end == at) {
            break;
        }
        at += 1;
    }
    (end, found)
}

/// The next telephone number in international form (ITU-T E.164: at most 15 digits; 8 make a number of anybody).
fn phone(text: &str, from: usize) -> Option<Found> {
    let mut at = from;
    while let Some(found) = text.get(at..)?.find('+') {
        let start = at + found;
        let (end, digits) = digits(text, start + 1, b" -./");
        if (8..=15).contains(&digits.len()) && !joins(text, end) {
            return Some((start, end, last_four(&digits)));
        }
        at = start + 1;
    }
    None
}

fn last_four(digits: &[u8]) -> String {
    let last = digits.get(digits.len().saturating_sub(4)..).unwrap_or_default();
    format!("…{}", last.iter().map(|digit| char::from(b'0' + digit)).collect::<String>())
}

/// The next number of a payment card: 13 to 19 digits whose check digit is right (ISO/IEC 7812-1), of the industries
/// that issue cards for payment. Times in milliseconds begin with 1 and are none.
fn card(text: &str, from: usize) -> Option<Found> {
    let mut at = from;
    while let Some(found) = text.get(at..)?.find(|c: char| c.is_ascii_digit()) {
        let start = at + found;
        let (end, digits) = digits(text, start, b" -");
        let industry = digits.first().is_some_and(|first| (2..=6).contains(first));
        if industry
            && (13..=19).contains(&digits.len())
            && luhn(&digits)
            && !joins(text, start)
            && !joins(text, end)
        {
            return Some((start, end, last_four(&digits)));
        }
        at = end.max(start + 1);
    }
    None
}

fn luhn(digits: &[u8]) -> bool {
    let weigh = |(place, digit): (usize, &u8)| {
        let weighed = u32::from(*digit) << (place % 2);
        if weighed > 9 { weighed - 9 } else { weighed }
    };
    digits.iter().rev().enumerate().map(weigh).sum::<u32>().is_multiple_of(10)
}

/// The next IBAN (ISO 13616): two letters, two check digits, 11 to 30 more, in groups or not, of which the check holds.
fn iban(text: &str, from: usize) -> Option<Found> {
    let bytes = text.as_bytes();
    let mut at = from;
    while let Some(found) = text.get(at..)?.find(|c: char| c.is_ascii_uppercase()) {
        let start = at + found;
        at = start + 1;
        if joins(text, start)
            || !matches!(bytes.get(start..start + 4), Some([_, b'A'..=b'Z', b'0'..=b'9', b'0'..=b'9']))
        {
            continue;
        }
        let (mut end, mut place, mut number) = (start, start, Vec::new());
        while let Some(byte) = bytes.get(place).filter(|_| number.len() < 34) {
            if byte.is_ascii_uppercase() || byte.is_ascii_digit() {
                number.push(*byte);
                end = place + 1;
            } else if !(*byte == b' ' && end == place) {
                break;
            }
            place += 1;
        }
        if number.len() >= 15 && !joins(text, end) && iban_holds(&number) {
            let last: String = number.iter().skip(number.len() - 4).map(|byte| char::from(*byte)).collect();
            return Some((start, end, format!("{}…{last}", text.get(start..start + 2)?)));
        }
    }
    None
}

/// ISO 7064, MOD 97-10: the first four characters go to the end, letters count from 10.
fn iban_holds(number: &[u8]) -> bool {
    let (head, tail) = number.split_at(4.min(number.len()));
    let rest = tail.iter().chain(head).fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    rest == 1
}

/// The next address that is not one of `known`.
fn ip(text: &str, from: usize, known: &[IpAddr]) -> Option<Found> {
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':');
    let mut at = from;
    while let Some(found) = text.get(at..)?.find(is_part) {
        let start = at + found;
        let run = text.get(start..)?;
        let run = run.get(..run.find(|c| !is_part(c)).unwrap_or(run.len()))?;
        at = start + run.len();
        if let Some((offset, length, address)) = ip_in(text, start, run) {
            let (from, to) = (start + offset, start + offset + length);
            if !known.contains(&address) {
                return Some((from, to, self::address(address).to_string()));
            }
            at = at.max(to);
        }
    }
    None
}

/// The address in a run of characters that addresses are made of, without a port, a colon before it or a stop behind it.
fn ip_in(text: &str, start: usize, run: &str) -> Option<(usize, usize, IpAddr)> {
    let whole = run.trim_end_matches('.');
    let free = |from: usize, to: usize| !joins(text, start + from) && !joins(text, start + to);
    let v6 = |part: &str| part.parse::<Ipv6Addr>().ok().map(|v6| IpAddr::V6(v6).to_canonical());
    for (from, part) in
        [(0, whole), (0, whole.trim_end_matches(':')), (1, whole.get(1..).unwrap_or_default())]
    {
        if let Some(address) = v6(part).filter(|_| free(from, from + part.len())) {
            return Some((from, part.len(), address));
        }
    }
    let mut from = 0;
    for part in whole.split(':') {
        if let Ok(v4) = part.parse::<Ipv4Addr>()
            && free(from, from + part.len())
        {
            return Some((from, part.len(), IpAddr::V4(v4)));
        }
        from += part.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(text: &str) -> String {
        people(text, Masks::ALL).into_owned()
    }

    #[test]
    fn people_are_masked_in_any_text() {
        for (text, shown) in [
            ("mail alice@example.com, or bob.b+x@b.example.", "mail a…@example.com, or b…@b.example."),
            ("user=alice@example.com&x", "user=a…@example.com&x"),
            ("a…@example.com", "a…@example.com"),
            ("@ x@ @y", "@ x@ @y"),
            ("é@ü.example", "é…@ü.example"),
            ("call +49 30 1234567 now", "call …4567 now"),
            ("1 + 2", "1 + 2"),
            ("card 4111-1111-1111-1111 and 5500005555555559.", "card …1111 and …5559."),
            ("card 4111111111111112 is none", "card 4111111111111112 is none"),
            ("at 1795284245123 it sent 123456789012 bytes", "at 1795284245123 it sent 123456789012 bytes"),
            ("to DE89370400440532013000, GB82 WEST 1234 5698 7654 32", "to DE…3000, GB…5432"),
            ("DE89370400440532013001", "DE89370400440532013001"),
            ("Mozilla/5.0 (X11) Chrome/120.0.6099.109", "Mozilla/5.0 (X11) Chrome/120.0.6099.109"),
        ] {
            assert_eq!(masked(text), shown);
            assert_eq!(masked(shown), shown, "twice is once");
        }
    }

    #[test]
    fn segments_that_are_long_numbers_are_somebodys() {
        for (text, shown) in [
            ("/pay/4111111111111111", "/pay/…1111"),
            ("GET /accounts/123456789/x", "GET /accounts/…6789/x"),
            ("/call/+49-30-1234567", "/call/…4567"),
            ("/orders/12345678", "/orders/12345678"),
            ("/orders/550e8400-e29b-41d4-a716-446655440000", "/orders/550e8400-e29b-41d4-a716-446655440000"),
        ] {
            assert_eq!(segments(text, Masks::ALL), shown);
            assert_eq!(segments(text, Masks::NONE), text);
        }
        let phones = Masks { phone: true, ..Masks::NONE };
        assert_eq!(segments("/call/+49-30-1234567/123456789", phones), "/call/…4567/123456789");
    }

    #[test]
    fn addresses_are_masked_in_any_text() {
        let server = ["10.0.0.1".parse().unwrap()];
        for (text, shown) in [
            ("from 203.0.113.7.", "from 203.0.0.0."),
            ("203.0.113.7:443 -> 10.0.0.1:8080", "203.0.0.0:443 -> 10.0.0.1:8080"),
            ("by [2001:db8:1:2::3]:80", "by [2001:db8::]:80"),
            ("peer:2001:db8:1:2::3", "peer:2001:db8::"),
            ("face:203.0.113.7", "face:203.0.0.0"),
            ("::ffff:203.0.113.7, ::1", "203.0.0.0, ::"),
            (
                "std::fs 12:34:56 1.2.3.4.5 v1.2.3.4x 6099.1.2.3",
                "std::fs 12:34:56 1.2.3.4.5 v1.2.3.4x 6099.1.2.3",
            ),
            ("", ""),
        ] {
            assert_eq!(addresses(text.into(), &server), shown, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[a-zA-Z0-9@.:+/ \u{e9}-]{0,80}|\\PC{0,40}") {
            let once = segments(&text, Masks::ALL).into_owned();
            prop_assert!(once.len() <= text.len() + 8 * text.len());
            let _ = addresses(once.into(), &[]);
        }

        #[test]
        fn no_whole_address_is_left(address in any::<std::net::Ipv6Addr>(), v4 in any::<Ipv4Addr>(), before in "[ (=,]", after in "[ ).,]") {
            for whole in [address.to_string(), v4.to_string()] {
                let text = format!("x{before}{whole}{after}y");
                let shown = addresses(text.clone().into(), &[]).into_owned();
                prop_assert!(!shown.contains(&whole) || self::address(whole.parse().unwrap()).to_string() == whole, "{text} {shown}");
            }
        }
    }
}
