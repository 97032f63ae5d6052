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
