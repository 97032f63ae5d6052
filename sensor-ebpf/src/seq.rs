//! Arithmetic on TCP sequence numbers: bytes counted modulo 2^32 (RFC 9293 section 3.4).

/// How far `a` is ahead of `b` in bytes; negative when it is behind.
///
/// True while they are less than 2^31 apart. Not transitive: do not sort with it.
#[inline]
#[must_use]
pub const fn ahead(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

/// The largest distance past `rcv_nxt` at which TCP can still accept a byte: the greatest window
/// that window scaling allows, 2^30 bytes (RFC 7323 section 2.3).
pub const MAX_WINDOW: i32 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_across_the_wrap() {
        assert_eq!(ahead(5, u32::MAX), 6);
        assert_eq!(ahead(u32::MAX, 5), -6);
        assert_eq!(ahead(7, 7), 0);
    }
}
