//! Who holds an address: what one client can change at will must not make it many clients.

use std::net::{IpAddr, Ipv6Addr};

use crate::detect::knowledge::Place;

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

/// By what a client reaches the internet: the autonomous system, or the network where that is not known.
#[must_use]
pub fn egress(place: Option<&Place>, client: IpAddr) -> u32 {
    place.and_then(|place| place.asn).unwrap_or_else(|| {
        let (v4, bits) = network(client);
        // Numbers of systems that may be used end at 4,199,999,999 (RFC 6996 and 7300): these lie beyond.
        if v4 { 0xff00_0000 | bits } else { 0xfe00_0000 | (bits ^ (bits >> 16)) & 0x00ff_ffff }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_and_networks_are_told_apart() {
        let place = Place { asn: Some(64_500), ..Place::default() };
        let [v4, near, v6] = ["10.0.3.7", "10.0.9.9", "2001:db8::1"].map(|a| a.parse().unwrap());
        assert_eq!(egress(Some(&place), v4), 64_500);
        assert_eq!(egress(None, v4), egress(Some(&Place::default()), near));
        assert_ne!(egress(None, v4), egress(None, v6));
    }

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
