//! Keys of NATS: an Ed25519 seed as text, and what it signs (docs.nats.io, "NKeys").
//!
//! The text is base32 (RFC 4648 section 6, without padding) of two bytes that say what it is, the seed, and a CRC-16 that
//! catches what was copied wrong.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// The first byte of a seed: base32 of it begins with `S`.
const SEED: u8 = 18 << 3;

/// Two bytes of kind, the seed, two of checksum.
const SEED_LEN: usize = 36;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A key that can sign.
pub(super) struct Key {
    pair: Ed25519KeyPair,
    public: String,
}

impl Key {
    /// Reads a seed. Nothing that it says of a wrong one tells what is in it.
    pub(super) fn of_seed(text: &[u8]) -> Result<Self, &'static str> {
        const WRONG: &str = "the nkey seed is none: it begins with SU and has 58 letters and digits";
        let bytes = decode(text.trim_ascii()).filter(|bytes| bytes.len() == SEED_LEN).ok_or(WRONG)?;
        let (data, sum) = bytes.split_at_checked(SEED_LEN - 2).ok_or(WRONG)?;
        if crc(data).to_le_bytes() != sum {
            return Err("the nkey seed was copied wrong: its checksum does not fit");
        }
        let (kind, seed) = data.split_at_checked(2).ok_or(WRONG)?;
        let &[first, second] = kind else { return Err(WRONG) };
        if first & 0xf8 != SEED {
            return Err(WRONG);
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_error| WRONG)?;
        let whose = (first & 7) << 5 | second >> 3;
        let mut public = vec![whose];
        public.extend_from_slice(pair.public_key().as_ref());
        public.extend_from_slice(&crc(&public).to_le_bytes());
        Ok(Self { pair, public: encode(&public) })
    }

    /// The public key as text.
    pub(super) fn public(&self) -> &str {
        &self.public
    }

    /// The signature of what the server asks to be signed.
    pub(super) fn sign(&self, nonce: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.sign(nonce).as_ref())
    }
}

/// The JWT and the seed of a file of credentials: each a block between lines of dashes.
pub(super) fn credentials(text: &[u8]) -> Result<(Zeroizing<String>, Key), &'static str> {
    const WRONG: &str = "`creds` holds no USER JWT and USER NKEY SEED";
    let text = str::from_utf8(text).map_err(|_error| WRONG)?;
    let block = |name: &str| {
        let begin = format!("BEGIN {name}-");
        let mut lines = text.lines().skip_while(|line| !line.contains(&begin)).skip(1);
        lines.find(|line| !line.trim().is_empty()).map(str::trim)
    };
    let jwt = block("NATS USER JWT").ok_or(WRONG)?;
    let seed = block("USER NKEY SEED").ok_or(WRONG)?;
    Ok((Zeroizing::new(jwt.to_owned()), Key::of_seed(seed.as_bytes())?))
}

fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(SEED_LEN));
    let (mut bits, mut count) = (0_u32, 0);
    // Twice what a seed has: longer is none.
    for letter in text.iter().take(2 * 58) {
        let value = ALPHABET.iter().position(|other| other == letter)?;
        bits = bits << 5 | u32::try_from(value).ok()?;
        count += 5;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}

fn encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    let (mut bits, mut count) = (0_u32, 0);
    let mut push = |value: u32| {
        out.extend(ALPHABET.get((value & 31) as usize).map(|letter| char::from(*letter)));
    };
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            push(bits >> count);
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        push(bits << (5 - count));
    }
    out
}

/// CRC-16/XMODEM: polynomial 0x1021, begun with 0.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ u16::from(*byte) << 8,
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The text of a seed.
    fn seed(bytes: [u8; 32]) -> String {
        let mut data = vec![SEED | 20 << 3 >> 5, (20 << 3 & 31) << 3];
        data.extend(bytes);
        data.extend(crc(&data).to_le_bytes());
        encode(&data)
    }

    #[test]
    fn the_checksum_is_the_one_of_xmodem() {
        assert_eq!(crc(b"123456789"), 0x31c3);
    }

    #[test]
    fn a_seed_makes_a_key_of_a_user() {
        let text = seed([7; 32]);
        assert!(text.starts_with("SU") && text.len() == 58, "{text}");
        let key = Key::of_seed(format!("{text}\n").as_bytes()).unwrap();
        assert!(key.public().starts_with('U') && key.public().len() == 56, "{}", key.public());
        let public = decode(key.public().as_bytes()).unwrap();
        let verifier =
            aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, &public[1..33]);
        let signature = URL_SAFE_NO_PAD.decode(key.sign(b"nonce")).unwrap();
        verifier.verify(b"nonce", &signature).unwrap();
    }

    #[test]
    fn credentials_have_two_blocks() {
        let text = format!(
            "-----BEGIN NATS USER JWT-----\neyJ.x.y\n------END NATS USER JWT------\n\n*** secret ***\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            seed([9; 32])
        );
        assert_eq!(credentials(text.as_bytes()).ok().unwrap().0.as_str(), "eyJ.x.y");
        assert!(credentials(b"-----BEGIN NATS USER JWT-----\neyJ.x.y\n").is_err());
    }

    proptest! {
        #[test]
        fn a_wrong_seed_is_refused_and_not_shown(bytes: [u8; 32], at in 0_usize..58) {
            let mut text = seed(bytes).into_bytes();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            let why = Key::of_seed(&text).err();
            // The last letter has bits that mean nothing.
            prop_assert!(why.is_some() || at == 57);
            prop_assert!(why.is_none_or(|why| !why.contains(str::from_utf8(&text).unwrap())));
        }

        #[test]
        fn nothing_that_is_no_seed_panics(text: Vec<u8>) {
            prop_assert!(Key::of_seed(&text).is_err());
            prop_assert!(credentials(&text).is_err());
        }
    }
}
