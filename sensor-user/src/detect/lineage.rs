//! Where tokens come from, as far as token responses were read: which refresh token each was had for, which others
//! come from the same login, and which service issued it.
//!
//! A *family* is what one login began: its tokens, and all that were had for its refresh tokens (RFC 9700 section
//! 4.14.2). It is told by keyed hashes alone. Only what a service answered with 2xx counts, so nobody but an issuer
//! makes families. The account is the name in the login that began the family, which the service has believed. Empty, and
//! free, unless `tokens.learn_issued` is set; then 44 bytes a token and 90 a refresh token, as many of each as
//! `tokens.max_tokens`.

use serde::{Deserialize, Serialize};

use crate::detect::roster::{Roster, stable_hash};
use crate::detect::table::Table;
use crate::detect::{Column, Known, Principal, Slot, Who, scene, spelling};
use crate::http::Exchange;
use crate::token::{IssuedToken, TokenUse};

/// How a token came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// Names its family; 0 if nobody saw it issued.
    pub family: u64,
    /// The account that its family's login named, by [`account`]; 0 if that is not known.
    pub account: u64,
    /// When: data time, seconds since the epoch.
    pub at_s: u32,
    /// For how many seconds its issuer says that it is good; 0 if that is not said.
    pub expires_in_s: u32,
    /// Who issued it.
    pub service: Slot,
}

/// A refresh token that was seen to be issued. Others are not known: what is sent where a refresh token belongs may be
/// a placeholder, the same for everybody.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Link {
    family: u64,
    account: u64,
    /// The one that it was had for.
    parent: Option<u128>,
    /// One that was had for it was used: its owner has moved on.
    left: bool,
    /// It was issued to several: a placeholder, which says nothing.
    common: bool,
}

/// Families whose owner is remembered: as many as connections are by the rules that count them, 150 bytes each.
const MAX_OWNERS: usize = 65_536;

/// What an exchange says of the making of tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Issue<'a> {
    /// The tokens that it issued, but for the refresh token.
    pub tokens: &'a [IssuedToken],
    /// The refresh token that it accepted had been exchanged for another before, which was used since.
    pub left_behind: bool,
    /// It is the first use of what another refresh token was exchanged for: that one is left behind from now on.
    pub moves_on: bool,
    /// The place of the owner of the family that the refresh token belongs to.
    owner: Option<usize>,
}

/// Every token that was seen to be issued.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lineage {
    births: Column<Birth>,
    links: Table<u128, Link>,
    /// Whose each family is, by the first verified token of it that was used.
    owners: Table<u64, Principal>,
    /// Families so far.
    begun: u64,
}

impl Lineage {
    /// Knows of at most `cap` refresh tokens; of tokens, as many as the roster.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { births: Column::default(), links: Table::new(cap), owners: Table::new(MAX_OWNERS), begun: 0 }
    }

    /// Whether no token was ever seen to be issued.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.births.bytes() == 0
    }

    /// Takes over what an earlier run knew.
    pub fn resume(&mut self, earlier: Self) {
        let cap = self.links.cap();
        *self = earlier;
        self.links.limit(cap);
        self.owners.limit(MAX_OWNERS);
    }

    /// How the token in this place of the roster came to be, if that was seen.
    #[inline]
    #[must_use]
    pub fn birth(&self, token: Slot) -> Option<&Birth> {
        self.births.peek(token).filter(|birth| birth.family != 0)
    }

    /// Whose refresh token an exchange used, as far as a verified token of its family has told.
    #[must_use]
    pub fn owner(&self, issue: &Issue<'_>) -> Option<&Principal> {
        self.owners.peek(issue.owner?)
    }

    /// Notes whose families the tokens belong to that are used for the first time. `tokens` have their final verdict.
    #[inline]
    pub fn learn_owners(&mut self, tokens: &[TokenUse], who: &Who) {
        if self.is_empty() {
            return;
        }
        for held in tokens.iter().filter(|held| held.token.is_verified()) {
            let known = who.token(held.token.fingerprint).filter(Known::is_new);
            let family = known.and_then(|known| self.birth(known.slot)).map(|birth| birth.family);
            if let (Some(family), Some(owner)) = (family, scene::principal(&held.token)) {
                self.owners.get_or(family, || owner);
            }
        }
    }

    /// Notes what an exchange issued, and for what.
    #[inline]
    pub fn see<'a>(
        &mut self,
        exchange: &Exchange,
        tokens: &'a [IssuedToken],
        who: &Who,
        roster: &mut Roster,
    ) -> Issue<'a> {
        let nothing = tokens.is_empty() && self.links.is_empty() && exchange.issued().is_none();
        if nothing || exchange.body.is_none() || !exchange.is_success() {
            return Issue { tokens, ..Issue::default() };
        }
        self.trace(exchange, tokens, who, roster)
    }

    fn trace<'a>(
        &mut self,
        exchange: &Exchange,
        tokens: &'a [IssuedToken],
        who: &Who,
        roster: &mut Roster,
    ) -> Issue<'a> {
        let given = exchange.body.as_ref().and_then(|body| body.refresh_token);
        let issued = exchange.issued();
        let known =
            given.and_then(|given| self.links.get(&given).map(|link| *link)).filter(|link| !link.common);
        let parent = known.and_then(|link| link.parent).and_then(|parent| self.links.get(&parent));
        let moves_on = parent.is_some_and(|parent| !std::mem::replace(&mut parent.left, true));
        let owner = known.and_then(|link| {
            let hash = self.owners.hash_of(&link.family);
            self.owners.position(hash, |family| *family == link.family)
        });
        let issue = Issue { tokens, left_behind: known.is_some_and(|link| link.left), moves_on, owner };
        let (family, account) = match known {
            Some(link) => (link.family, link.account),
            // Begun here, as far as is known; whatever is issued may be the same for everybody.
            None => (self.begin(exchange), if given.is_none() { named(exchange) } else { 0 }),
        };
        // An issuer that does not rotate sends the same one, or none.
        if let Some(gained) =
            issued.and_then(|issued| issued.refresh_token).filter(|gained| given != Some(*gained))
        {
            let parent = given.filter(|_| known.is_some());
            self.join(gained, Link { family, account, parent, left: false, common: false });
        }
        let at_s = u32::try_from(exchange.at.secs()).unwrap_or(u32::MAX);
        let expires_in_s = issued.and_then(|issued| issued.expires_in_s).unwrap_or_default();
        for token in tokens {
            let slot = roster.expect(token.fingerprint, at_s);
            *self.births.of(slot) = Birth { family, account, at_s, expires_in_s, service: who.service.slot };
        }
        issue
    }
}

impl Lineage {
    /// Names a new family.
    fn begin(&mut self, exchange: &Exchange) -> u64 {
        self.begun = self.begun.wrapping_add(1);
        stable_hash(&(self.begun, exchange.at.0, exchange.socket.0)).max(1)
    }

    /// Notes a refresh token that was issued. The same one for the same one is an answer that was asked for again.
    fn join(&mut self, name: u128, link: Link) {
        let mut is_new = false;
        let known = self.links.get_or(name, || {
            is_new = true;
            link
        });
        if let Some(known) =
            known.filter(|known| !is_new && (known.parent.is_none() || known.parent != link.parent))
        {
            known.common = true;
        }
    }
}

/// The account that a login names, if it names one only.
fn named(exchange: &Exchange) -> u64 {
    let clear = exchange.body.as_ref().is_some_and(|body| !body.ambiguous);
    exchange.account().filter(|_| clear).map_or(0, account)
}

/// Names an account without regard to its spelling; never 0.
#[must_use]
pub fn account(name: &str) -> u64 {
    spelling::account(name).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::Stage;
    use crate::detect::{DetectSettings, Route};
    use crate::token::Fingerprint;

    fn issued(number: u8) -> IssuedToken {
        IssuedToken { fingerprint: Fingerprint([number; 16]), opaque: None }
    }

    struct Bench {
        lineage: Lineage,
        roster: Roster,
    }

    impl Bench {
        fn new() -> Self {
            let settings = DetectSettings { max_tokens: 50, ..DetectSettings::default() };
            Self { lineage: Lineage::new(50), roster: Roster::new(&settings) }
        }

        /// A token response; says whether the refresh token that was given had been left behind.
        fn answer(&mut self, given: Option<u128>, gained: Option<u128>, token: u8, status: u16) -> bool {
            let stage = Stage::to("POST", "/oauth/token").status(status).issuing(given, gained);
            let mut who = Who::default();
            self.roster.see(&stage.exchange, &[], &Route::default(), 0, &mut who);
            let tokens = [issued(token)];
            self.lineage.see(&stage.exchange, &tokens, &who, &mut self.roster).left_behind
        }

        fn family(&mut self, token: u8) -> u64 {
            let slot = self.roster.expect(Fingerprint([token; 16]), 0);
            self.lineage.birth(slot).map_or(0, |birth| birth.family)
        }
    }

    #[test]
    fn a_family_goes_on_over_rotation_and_two_logins_are_two() {
        let mut bench = Bench::new();
        bench.answer(None, Some(1), 1, 200);
        bench.answer(Some(1), Some(2), 2, 200);
        bench.answer(Some(2), Some(3), 3, 200);
        bench.answer(None, Some(9), 4, 200);
        let family = bench.family(1);
        assert!(family != 0 && bench.family(2) == family && bench.family(3) == family);
        assert!(bench.family(4) != 0 && bench.family(4) != family);
        assert_eq!(bench.family(5), 0);
    }

    #[test]
    fn what_everybody_gets_or_sends_joins_nobody() {
        let mut bench = Bench::new();
        bench.answer(None, Some(1), 1, 200);
        bench.answer(None, Some(1), 2, 200);
        bench.answer(Some(1), Some(5), 3, 200);
        bench.answer(Some(1), Some(6), 4, 200);
        assert_ne!(bench.family(3), bench.family(4), "issued to two");
        bench.answer(Some(77), Some(8), 5, 200);
        bench.answer(Some(77), Some(9), 6, 200);
        assert_ne!(bench.family(5), bench.family(6), "issued to nobody");
        assert!(!bench.answer(Some(8), Some(10), 7, 200));
        assert!(!bench.answer(Some(77), Some(11), 8, 200));
        bench.answer(None, Some(20), 9, 200);
        bench.answer(Some(20), Some(1), 10, 200);
        bench.answer(Some(1), Some(21), 11, 200);
        assert_ne!(bench.family(10), bench.family(11), "a placeholder for the last one");
    }

    #[test]
    fn without_rotation_a_family_is_one_as_well() {
        let mut bench = Bench::new();
        bench.answer(None, Some(7), 1, 200);
        bench.answer(Some(7), None, 2, 200);
        bench.answer(Some(7), Some(7), 3, 200);
        assert!(bench.family(1) == bench.family(2) && bench.family(2) == bench.family(3));
        assert!(!bench.answer(Some(7), None, 4, 200), "nothing came after it");
    }

    #[test]
    fn a_refresh_token_is_left_behind_once_its_successor_is_used() {
        let mut bench = Bench::new();
        bench.answer(None, Some(1), 1, 200);
        assert!(!bench.answer(Some(1), Some(2), 2, 200));
        assert!(!bench.answer(Some(1), Some(2), 2, 200), "the same answer again");
        assert!(!bench.answer(Some(1), Some(3), 3, 200), "the first answer may have been lost");
        assert!(!bench.answer(Some(3), Some(4), 4, 200));
        assert!(bench.answer(Some(1), Some(5), 5, 200));
        assert!(!bench.answer(Some(4), Some(6), 6, 200), "the owner goes on");
        assert!(!bench.answer(Some(1), Some(7), 7, 400), "refused");
    }

    #[test]
    fn a_family_keeps_the_account_of_its_login() {
        let mut bench = Bench::new();
        let login = |name: &str| Stage::to("POST", "/login").status(200).issuing(None, Some(1)).account(name);
        let mut see = |stage: Stage, token: u8| {
            let mut who = Who::default();
            bench.roster.see(&stage.exchange, &[], &Route::default(), 0, &mut who);
            bench.lineage.see(&stage.exchange, &[issued(token)], &who, &mut bench.roster);
            let slot = bench.roster.expect(Fingerprint([token; 16]), 0);
            bench.lineage.birth(slot).unwrap().account
        };
        assert_eq!(see(login("Alice "), 1), account("alice"));
        assert_eq!(see(Stage::to("POST", "/t").status(200).issuing(Some(1), Some(2)), 2), account("alice"));
        let mut two = login("bob");
        two.exchange.body.as_mut().unwrap().ambiguous = true;
        assert_eq!(see(two, 3), 0, "readers may differ on which counts");
    }

    #[test]
    fn refusals_make_no_family_and_floods_are_bounded() {
        let mut bench = Bench::new();
        bench.answer(None, Some(1), 1, 401);
        assert_eq!(bench.family(1), 0);
        for n in 0..5_000_u128 {
            bench.answer(None, Some(n), u8::try_from(n % 200).unwrap(), 200);
        }
        assert_eq!(bench.lineage.links.len(), 50);
    }

    #[test]
    fn a_restart_keeps_families() {
        let mut bench = Bench::new();
        bench.answer(None, Some(1), 1, 200);
        let family = bench.family(1);
        let saved = postcard::to_allocvec(&bench.lineage).unwrap();
        bench.lineage = Lineage::new(20);
        bench.lineage.resume(postcard::from_bytes(&saved).unwrap());
        bench.answer(Some(1), Some(2), 2, 200);
        assert_eq!((bench.family(1), bench.family(2)), (family, family));
    }
}
