//! Lists that a value may be in: looked up by hash, whatever their length.

use std::net::IpAddr;

use hashbrown::HashSet;
use ipnet::IpNet;

/// Networks by prefix length: a lookup costs one hash for each length that occurs.
#[derive(Clone, Debug, Default)]
pub struct Nets {
    v4: Vec<(u8, HashSet<u32>)>,
    v6: Vec<(u8, HashSet<u128>)>,
}

impl Nets {
    /// Adds a network.
    pub fn insert(&mut self, net: IpNet) {
        match net.trunc() {
            IpNet::V4(net) => put(&mut self.v4, net.prefix_len(), net.network().to_bits()),
            IpNet::V6(net) => put(&mut self.v6, net.prefix_len(), net.network().to_bits()),
        }
    }

    /// Whether an address is in one of them. A mapped IPv4 address is an IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let bits = v4.to_bits();
                let cut = |len: u8| bits & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                self.v4.iter().any(|(len, nets)| nets.contains(&cut(*len)))
            }
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                let cut = |len: u8| bits & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                self.v6.iter().any(|(len, nets)| nets.contains(&cut(*len)))
            }
        }
    }
}

fn put<T: std::hash::Hash + Eq>(sets: &mut Vec<(u8, HashSet<T>)>, len: u8, net: T) {
    match sets.iter_mut().find(|(known, _)| *known == len) {
        Some((_, nets)) => {
            nets.insert(net);
        }
        None => sets.push((len, HashSet::from_iter([net]))),
    }
}

impl FromIterator<IpNet> for Nets {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let mut all = Self::default();
        nets.into_iter().for_each(|net| all.insert(net));
        all
    }
}

/// A list of constants of one type.
#[derive(Clone, Debug)]
pub enum Set {
    /// Texts.
    Texts(HashSet<Box<str>>),
    /// Numbers.
    Ints(HashSet<i64>),
    /// Networks; an address is a network of one.
    Nets(Nets),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_what_a_scan_of_the_networks_holds(
            nets in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..20),
            near in any::<u32>(), pick in any::<prop::sample::Index>(), flip in 0_u32..32,
        ) {
            let nets: Vec<IpNet> = nets.into_iter()
                .map(|(bits, len)| IpNet::new(IpAddr::from(bits.to_be_bytes()), len).unwrap())
                .collect();
            let address = if nets.is_empty() { near } else {
                let IpAddr::V4(v4) = pick.get(&nets).addr() else { panic!() };
                v4.to_bits() ^ (1 << flip)
            };
            let address = IpAddr::from(address.to_be_bytes());
            let set: Nets = nets.iter().copied().collect();
            prop_assert_eq!(set.contains(address), nets.iter().any(|net| net.contains(&address)));
        }
    }

    #[test]
    fn knows_both_families() {
        let set: Nets =
            ["2001:db8::/32", "::/0", "10.0.0.0/8"].iter().map(|net| net.parse::<IpNet>().unwrap()).collect();
        assert!(set.contains("2001:db8::1".parse().unwrap()) && set.contains("fe80::1".parse().unwrap()));
        assert!(
            set.contains("::ffff:10.1.1.1".parse().unwrap()) && !set.contains("11.0.0.1".parse().unwrap())
        );
    }
}
