//! Who is involved in an alert: what incidents join by, and what bears risk.
//!
//! A claim that nobody has verified names no entity, or a forged `sub` would make its owner risky. An address that many
//! people share is no entity either: trusted addresses by configuration, others once alerts have shown
//! [`MANY`] verified principals behind them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::detect::Finding;
use crate::detect::holder::holder;
use crate::detect::roster::stable_hash;
use crate::detect::table::Table;
use crate::token::Fingerprint;

/// Verified principals behind one address that make it a shared one: more than a family, fewer than an office.
pub const MANY: usize = 8;

/// Somebody or something that alerts are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Entity {
    /// Subject and issuer, as a verified signature says.
    Principal(Box<str>, Option<Box<str>>),
    /// A token.
    Token(Fingerprint),
    /// Who holds an address.
    Address(IpAddr),
}

impl Entity {
    /// The word used in events.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Principal(..) => "principal",
            Self::Token(_) => "token",
            Self::Address(_) => "address",
        }
    }
}

/// The entities of one finding, the most telling first.
pub type Entities = SmallVec<[Entity; 3]>;

/// Which addresses many people share.
#[derive(Debug)]
pub struct Sharing {
    trusted: Vec<IpNet>,
    /// Hashes of the verified principals that alerts have shown behind each address, up to [`MANY`]: 80 bytes.
    pub(super) seen: Table<IpAddr, SmallVec<[u64; MANY]>>,
}

impl Sharing {
    /// Trusts these addresses to be shared, and remembers so many others.
    #[must_use]
    pub fn new(trusted: Vec<IpNet>, cap: usize) -> Self {
        Self { trusted, seen: Table::new(cap) }
    }

    /// The entities of a finding; notes who was behind its address.
    pub fn entities(&mut self, finding: &Finding) -> Entities {
        let mut entities = Entities::new();
        let principal = finding.principal.as_ref().filter(|p| p.verified);
        if let Some(p) = principal {
            entities.push(Entity::Principal(p.subject.clone(), p.issuer.clone()));
        }
        entities.extend(finding.token.map(Entity::Token));
        let Some(scene) = &finding.scene else { return entities };
        if scene.is_of_service() {
            return entities;
        }
        let address = holder(scene.client);
        let name = principal.map(|p| stable_hash(&(&p.subject, &p.issuer)));
        if !self.trusted.iter().any(|net| net.contains(&scene.client)) && !self.is_crowd(address, name) {
            entities.push(Entity::Address(address));
        }
        entities
    }

    fn is_crowd(&mut self, address: IpAddr, name: Option<u64>) -> bool {
        let Some(name) = name else {
            return self.seen.get(&address).is_some_and(|names| names.len() >= MANY);
        };
        let Some(names) = self.seen.get_or(address, SmallVec::new) else { return false };
        if names.len() < MANY && !names.contains(&name) {
            names.push(name);
        }
        names.len() >= MANY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::staging::finding;
    use crate::detect::Scene;

    fn kinds(sharing: &mut Sharing, finding: &Finding) -> Vec<&'static str> {
        sharing.entities(finding).iter().map(Entity::kind).collect()
    }

    #[test]
    fn a_claim_names_nobody() {
        let mut sharing = Sharing::new(Vec::new(), 10);
        let mut finding = finding(1);
        assert_eq!(kinds(&mut sharing, &finding), ["token", "address"]);
        finding.principal.as_mut().unwrap().verified = true;
        assert_eq!(kinds(&mut sharing, &finding), ["principal", "token", "address"]);
        finding.scene = None;
        assert_eq!(kinds(&mut sharing, &finding), ["principal", "token"]);
    }

    #[test]
    fn what_is_about_a_service_names_nobody() {
        let mut finding = finding(1);
        (finding.token, finding.principal) = (None, None);
        let mut sharing = Sharing::new(Vec::new(), 10);
        finding.scene.as_mut().unwrap().client = Scene::NOBODY.ip();
        assert_eq!(kinds(&mut sharing, &finding), ["address"], "only a proxy says so");
        finding.scene.as_mut().unwrap().endpoints.client = Scene::NOBODY;
        assert!(kinds(&mut sharing, &finding).is_empty());
    }

    #[test]
    fn what_many_share_is_no_entity() {
        let mut trusting = Sharing::new(vec!["10.0.0.0/8".parse().unwrap()], 10);
        assert_eq!(kinds(&mut trusting, &finding(1)), ["token"]);
        let mut sharing = Sharing::new(Vec::new(), 10);
        for number in 0..8_u8 {
            let mut finding = finding(number);
            let principal = finding.principal.as_mut().unwrap();
            principal.subject = format!("user-{number}").into();
            principal.verified = true;
            assert_eq!(kinds(&mut sharing, &finding).contains(&"address"), number < 7, "{number}");
        }
        assert_eq!(kinds(&mut sharing, &finding(99)), ["token"], "also for those who are not verified");
    }

    #[test]
    fn claims_do_not_make_an_address_a_crowd() {
        let mut sharing = Sharing::new(Vec::new(), 10);
        for number in 0..50_u8 {
            let mut finding = finding(number);
            finding.principal.as_mut().unwrap().subject = format!("user-{number}").into();
            assert!(kinds(&mut sharing, &finding).contains(&"address"));
        }
    }
}
