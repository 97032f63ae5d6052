//! Who holds an address: what one client can change at will must not make it many clients.

use std::net::{IpAddr, Ipv6Addr};

/// What one client holds: an IPv4 address, or an IPv6 network of 64 bits (RFC 6177 gives a site no less), in which it
/// may take a new address for every connection.
#[must_use]
pub fn holder(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The network that an address counts to: /16 of IPv4, /32 of IPv6. Whoever moves inside one is not far away.
#[must_use]
pub fn network(address: IpAddr) -> (bool, u32) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (true, v4.to_bits() >> 16),
        IpAddr::V6(v6) => (false, u32::try_from(v6.to_bits() >> 96).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_client_holds_its_network() {
        for (address, held) in [
            ("10.0.3.7", "10.0.3.7"),
            ("::ffff:10.0.3.7", "10.0.3.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(holder(address.parse().unwrap()).to_string(), held);
        }
    }
}
