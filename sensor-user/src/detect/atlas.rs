//! Places of addresses, looked up once for each and kept until other knowledge comes.
//!
//! Memory: 40 bytes an address, and nothing without a database and a list.

use std::net::IpAddr;

use crate::detect::knowledge::{Knowledge, Place};
use crate::detect::roster::{Column, Who};

/// What is known from outside of one address.
#[derive(Clone, Copy, Debug, Default)]
struct Sight {
    is_known: bool,
    is_bad: bool,
    place: Place,
}

/// What is known from outside of every address of the roster.
#[derive(Debug, Default)]
pub struct Atlas(Column<Sight>);

impl Atlas {
    /// Tells `who` where the client is, and whether its address is a known attacker's.
    ///
    /// An IPv6 client is where its network of 64 bits is: no database is finer. Lists may be, so they are asked for
    /// the address itself.
    #[inline]
    pub fn show(&mut self, knowledge: &Knowledge, client: IpAddr, who: &mut Who) {
        if knowledge.geo.is_none() && knowledge.bad_addresses.is_empty() {
            (who.place, who.bad_address) = (None, false);
            return;
        }
        let sight = if who.address.slot.life == 0 {
            Sight::of(knowledge, client)
        } else {
            let sight = self.0.of(who.address.slot);
            if !sight.is_known {
                *sight = Sight::of(knowledge, client);
            }
            *sight
        };
        who.place = knowledge.geo.is_some().then_some(sight.place);
        who.bad_address = match client {
            IpAddr::V4(_) => sight.is_bad,
            IpAddr::V6(_) => knowledge.bad_addresses.contains(client),
        };
    }

    /// Forgets everything: other knowledge has come.
    pub fn clear(&mut self) {
        self.0 = Column::default();
    }
}

impl Sight {
    fn of(knowledge: &Knowledge, client: IpAddr) -> Self {
        Self {
            is_known: true,
            is_bad: knowledge.bad_addresses.contains(client),
            place: knowledge.geo.as_ref().map(|geo| geo.place(client.to_canonical())).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::detect::knowledge::Geo;
    use crate::detect::roster::{Known, Slot};

    #[derive(Default)]
    struct Counting(AtomicU32);

    impl Geo for Counting {
        fn place(&self, _: IpAddr) -> Place {
            Place { asn: Some(self.0.fetch_add(1, Ordering::Relaxed)), ..Place::default() }
        }
    }

    fn at(place: u32) -> Who {
        let slot = Slot { at: place, life: place + 1 };
        Who { address: Known { slot, ..Known::default() }, ..Who::default() }
    }

    #[test]
    fn asks_once_for_each_address_and_again_when_told() {
        let geo = Arc::new(Counting::default());
        let knowledge = Knowledge { geo: Some(geo), ..Knowledge::default() };
        let mut atlas = Atlas::default();
        let asn = |atlas: &mut Atlas, place| {
            let mut who = at(place);
            atlas.show(&knowledge, "192.0.2.1".parse().unwrap(), &mut who);
            who.place.unwrap().asn.unwrap()
        };
        assert_eq!([asn(&mut atlas, 0), asn(&mut atlas, 0), asn(&mut atlas, 1)], [0, 0, 1]);
        atlas.clear();
        assert_eq!([asn(&mut atlas, 0), asn(&mut atlas, 0)], [2, 2]);
    }

    #[test]
    fn knows_nothing_without_a_database_and_bad_addresses_by_list() {
        let list = ["192.0.2.0/24", "2001:db8::7/128"].map(|net| net.parse().unwrap());
        let knowledge = Knowledge { bad_addresses: list.into_iter().collect(), ..Knowledge::default() };
        let mut atlas = Atlas::default();
        for (place, address, bad) in [
            (0, "192.0.2.9", true),
            (1, "192.0.3.9", false),
            (2, "2001:db8::7", true),
            (2, "2001:db8::8", false),
        ] {
            let mut who = at(place);
            atlas.show(&knowledge, address.parse().unwrap(), &mut who);
            assert_eq!((who.place, who.bad_address), (None, bad), "{address}");
        }
    }
}
