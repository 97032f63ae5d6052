//! TCP sequence numbers: positions in a byte stream, counted modulo 2^32 (RFC 9293 section 3.4).

/// The position of a byte in one direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seq(pub u32);

impl Seq {
    /// The position `by` bytes further on.
    #[must_use]
    pub const fn plus(self, by: u32) -> Self {
        Self(self.0.wrapping_add(by))
    }

    /// Bytes from `earlier` to here, if this is `earlier` or up to 2^31 - 1 bytes after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Option<u32> {
        let distance = self.0.wrapping_sub(earlier.0);
        if distance < 1 << 31 { Some(distance) } else { None }
    }

    /// Whether this is 1 to 2^31 bytes before `other`. Not transitive: do not sort with it.
    #[must_use]
    pub const fn before(self, other: Self) -> bool {
        self.since(other).is_none()
    }

    /// The earlier of two positions that are less than 2^31 bytes apart.
    #[must_use]
    pub const fn earlier(self, other: Self) -> Self {
        if self.before(other) { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        let high = Seq(u32::MAX - 1);
        assert!(high.before(high.plus(4)));
        assert_eq!(high.plus(4).since(high), Some(4));
        assert_eq!(high.since(high.plus(4)), None);
        assert_eq!(high.earlier(Seq(3)), high);
    }

    #[test]
    fn a_position_is_not_before_itself() {
        assert!(!Seq(7).before(Seq(7)));
        assert_eq!(Seq(7).since(Seq(7)), Some(0));
    }
}
