//! MD5 (RFC 1321), to recognise what others have hashed with it. Good for nothing else.

/// Rotations of the four rounds (RFC 1321 section 3.4).
const TURNS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

/// The digest of a text.
pub(super) fn md5(text: &[u8]) -> [u8; 16] {
    let mut padded = text.to_vec();
    padded.push(0x80);
    padded.resize(padded.len() + (120 - padded.len() % 64) % 64, 0);
    let bits = (text.len() as u64).wrapping_mul(8);
    padded.extend_from_slice(&bits.to_le_bytes());
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in padded.chunks_exact(64) {
        state = step(state, block);
    }
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(state.iter().flat_map(|word| word.to_le_bytes())) {
        *to = from;
    }
    out
}

fn step(before: [u32; 4], block: &[u8]) -> [u32; 4] {
    let word = |at: usize| {
        let bytes = block.get(at * 4..).and_then(<[u8]>::first_chunk::<4>).copied().unwrap_or_default();
        u32::from_le_bytes(bytes)
    };
    let [mut a, mut b, mut c, mut d] = before;
    for (at, constant) in (0_usize..64).zip(constants()) {
        let (mixed, from) = match at / 16 {
            0 => ((b & c) | (!b & d), at),
            1 => ((d & b) | (!d & c), (5 * at + 1) % 16),
            2 => (b ^ c ^ d, (3 * at + 5) % 16),
            _ => (c ^ (b | !d), (7 * at) % 16),
        };
        let turn = TURNS.get(at / 16).and_then(|turns| turns.get(at % 4)).copied().unwrap_or_default();
        let sum = a.wrapping_add(mixed).wrapping_add(*constant).wrapping_add(word(from));
        (a, d, c, b) = (d, c, b, b.wrapping_add(sum.rotate_left(turn)));
    }
    let [a0, b0, c0, d0] = before;
    [a0.wrapping_add(a), b0.wrapping_add(b), c0.wrapping_add(c), d0.wrapping_add(d)]
}

/// The whole parts of 2^32 |sin(n)| for n from 1 to 64.
fn constants() -> &'static [u32; 64] {
    static ALL: std::sync::OnceLock<[u32; 64]> = std::sync::OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = [0; 64];
        for (n, constant) in (1_u32..).zip(&mut all) {
            let part = f64::from(n).sin().abs() * 4_294_967_296.0;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "below 2^32, positive"
            )]
            let whole = part as u32;
            *constant = whole;
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test suite of RFC 1321 appendix A.5.
    #[test]
    fn gives_the_digests_of_the_rfc() {
        for (text, expected) in [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "0cc175b9c0f1b6a831c399e269772661"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "57edf4a22be3c955ac49da2e2107b67a",
            ),
        ] {
            let digest = crate::token::Fingerprint(md5(text.as_bytes()));
            assert_eq!(digest.to_string(), expected, "{text}");
        }
    }
}
