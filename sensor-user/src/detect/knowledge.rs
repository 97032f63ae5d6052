//! What is known from outside: lists and places, as they were read last. Pure data; the runtime reads the files.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// Where an address is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// ISO 3166-1 alpha-2.
    pub country: Option<[u8; 2]>,
    /// Two letters: AF, AN, AS, EU, NA, OC, SA.
    pub continent: Option<[u8; 2]>,
    /// Degrees north and east.
    pub position: Option<(f32, f32)>,
    /// How wrong the position may be, in kilometres.
    pub radius_km: Option<u16>,
    /// The autonomous system.
    pub asn: Option<u32>,
}

/// Tells where addresses are. Implementations hold their data in memory: a lookup does no I/O.
pub trait Geo: Send + Sync {
    /// The place of an address, as far as it is known.
    fn place(&self, address: IpAddr) -> Place;
}

/// Lists and places. Replaced as a whole when any of them changes.
#[derive(Clone, Default)]
pub struct Knowledge {
    /// Places of addresses; none without a database.
    pub geo: Option<Arc<dyn Geo>>,
    /// Accounts that must not be used, lower case.
    pub denied_accounts: BTreeSet<Box<str>>,
    /// Accounts of people who have left, lower case.
    pub departed_accounts: BTreeSet<Box<str>>,
    /// `jti` of tokens that were revoked.
    pub revoked_ids: BTreeSet<Box<str>>,
    /// Roles and scopes that give power over others, upper case.
    pub privileged_roles: BTreeSet<Box<str>>,
    /// Countries that may be used, ISO 3166-1 alpha-2; empty means all.
    pub allowed_countries: BTreeSet<[u8; 2]>,
    /// Networks of known attackers.
    pub bad_addresses: Vec<IpNet>,
}

impl fmt::Debug for Knowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knowledge")
            .field("geo", &self.geo.is_some())
            .field("denied_accounts", &self.denied_accounts.len())
            .field("departed_accounts", &self.departed_accounts.len())
            .field("revoked_ids", &self.revoked_ids.len())
            .field("bad_addresses", &self.bad_addresses.len())
            .finish_non_exhaustive()
    }
}
