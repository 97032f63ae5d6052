//! Reading one part: who is meant, and then its rows, or its sums and facets.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Item, List, Sum, Trace, What, Window};
use crate::store::part::{Entity, Facet, HEAVY, Ids, hour};
use crate::store::totals::{NAMES, Totals};
use crate::store::veil::From;
use crate::token::Fingerprint;

/// Rows that are read one by one of an entity with many, where the window cuts a part.
const MOST_ROWS: i64 = 2000;

/// Values of a facet that are read of a part. The most frequent of all are among the most frequent of a part.
const MOST_VALUES: i64 = 250;

/// Tokens with one `jti`, and principals of one name, that are read of a part.
const MOST_ALIKE: i64 = 64;

/// Addresses of a network that are summed, and of these how many are looked at more closely: the busiest.
const MOST_ADDRESSES: i64 = 10_000;
const CLOSELY: usize = 8;

pub(super) const WHOLE_HOURS: &str = "the window is cut at whole hours";
pub(super) const WHOLE_PARTS: &str =
    "too busy to be cut at the window: counts are of whole parts of the history, each of some days";
pub(super) const BUSIEST: &str = "lists are those of the 8 busiest addresses of each part of the history";
pub(super) const TOO_WIDE: &str = "the network has more than 10,000 addresses that were seen: narrow it";

/// What was found in all parts, by the names that are shown.
#[derive(Debug, Default)]
pub(super) struct Collected {
    totals: Totals,
    /// Of uses whose tokens merely claim the principal.
    claims: Totals,
    facets: [BTreeMap<String, (Totals, Option<String>)>; 5],
    claimed: [BTreeMap<String, (Totals, Option<String>)>; 5],
    /// The highest number of different values that a part has of a facet, and whether counts are not exact.
    spread: [(u64, bool); 5],
    claimed_spread: [(u64, bool); 5],
    verified: Option<bool>,
    remarks: BTreeSet<&'static str>,
}

impl Collected {
    /// The answer without its names and alerts.
    pub(super) fn into_trace(mut self, top: usize) -> Trace {
        let mut claimed = self.claims.count;
        if self.totals.count == 0 && claimed > 0 {
            // Where nothing is verified, claims are all there is.
            (self.totals, self.facets, self.spread) = (self.claims, self.claimed, self.claimed_spread);
            claimed = 0;
            self.verified = Some(false);
        }
        let [services, routes, addresses, tokens, principals] = self.facets;
        let [of_services, of_routes, of_addresses, of_tokens, of_principals] = self.spread;
        Trace {
            verified: self.verified,
            totals: Sum(self.totals),
            claimed,
            services: list(services, of_services, top),
            routes: list(routes, of_routes, top),
            addresses: list(addresses, of_addresses, top),
            tokens: list(tokens, of_tokens, top),
            principals: list(principals, of_principals, top),
            remarks: self.remarks.into_iter().collect(),
            ..Trace::default()
        }
    }
}

fn list(
    all: BTreeMap<String, (Totals, Option<String>)>,
    (different, about): (u64, bool),
    top: usize,
) -> List {
    let found = (all.len() as u64).max(different);
    let item = |(name, (totals, note))| Item { name, note, totals: Sum(totals) };
    let mut items: Vec<Item> = all.into_iter().map(item).collect();
    items.sort_by(|a, b| b.totals.0.count.cmp(&a.totals.0.count).then_with(|| a.name.cmp(&b.name)));
    items.truncate(top);
    List { more: found.saturating_sub(items.len() as u64), items, about }
}

/// Tokens whose fingerprint is in this range, a few of them.
pub(super) fn tokens_between(
    part: &Connection,
    low: Fingerprint,
    high: Fingerprint,
) -> rusqlite::Result<Vec<Fingerprint>> {
    let mut all =
        part.prepare("SELECT fingerprint FROM tokens WHERE fingerprint BETWEEN ?1 AND ?2 LIMIT 5")?;
    let names = all.query_map([low.0, high.0], |row| row.get::<_, [u8; 16]>(0).map(Fingerprint))?;
    names.collect()
}

/// A question to one part.
pub(super) struct Ask<'p> {
    pub(super) part: &'p Connection,
    pub(super) start_ms: u64,
    pub(super) ends_ms: u64,
    pub(super) window: Window,
    /// The keyed hash of the name that is looked for, or the name as the store shows it.
    pub(super) hash: i64,
    pub(super) shown: Option<&'p str>,
}

/// Somebody in this part.
struct Who {
    entity: Entity,
    id: i64,
    rows: i64,
    totals: Totals,
    /// Whether its uses are claims only.
    claim: bool,
}

impl Ask<'_> {
    /// Adds what this part knows.
    pub(super) fn about(&self, what: &What, all: &mut Collected) -> rusqlite::Result<()> {
        let found = match what {
            What::Token(_) | What::Id(_) => self.tokens(what, all)?,
            What::Principal { issuer, .. } => self.principals(issuer.as_deref(), all)?,
            What::Address(net) => self.addresses(net, all)?,
        };
        let closely = if matches!(what, What::Address(_)) { CLOSELY } else { found.len() };
        let is_network = found.len() > 1 && matches!(what, What::Address(_));
        for (number, who) in found.iter().enumerate() {
            if number < closely {
                self.add(who, is_network, all)?;
            } else if self.overlaps(&who.totals) {
                // Of the other addresses of a network, their sums.
                all.totals.add(&who.totals);
                self.name(Facet::Address, who.id, &who.totals, who.claim, all)?;
            }
        }
        if is_network && found.len() > closely {
            all.remarks.insert(BUSIEST);
        }
        Ok(())
    }

    /// Whether all of the part is in the window.
    const fn is_whole(&self) -> bool {
        self.window.from_ms <= self.start_ms && self.window.until_ms >= self.ends_ms
    }

    const fn overlaps(&self, totals: &Totals) -> bool {
        totals.count > 0 && totals.last_ms >= self.window.from_ms && totals.first_ms <= self.window.until_ms
    }

    fn find(
        &self,
        entity: Entity,
        sql: &str,
        keys: &[&dyn rusqlite::ToSql],
    ) -> rusqlite::Result<Vec<(Who, i64)>> {
        let table = entity.table();
        let flag = if entity == Entity::Address { "0" } else { "verified" };
        let mut rows =
            self.part.prepare(&format!("SELECT {NAMES}, id, rows, {flag} FROM {table} WHERE {sql}"))?;
        let read = |row: &rusqlite::Row<'_>| {
            let totals = Totals::read(row, 0, self.start_ms)?;
            Ok((Who { entity, id: row.get(10)?, rows: row.get(11)?, totals, claim: false }, row.get(12)?))
        };
        rows.query_map(keys, read)?.collect()
    }

    fn tokens(&self, what: &What, all: &mut Collected) -> rusqlite::Result<Vec<Who>> {
        let found = match what {
            What::Token(name) => {
                self.find(Entity::Token, "fingerprint = ?1", params![super::digits(name)])?
            }
            _ => self.find(Entity::Token, "jti_hash = ?1 LIMIT ?2", params![self.hash, MOST_ALIKE])?,
        };
        for (_, verified) in &found {
            let verified = *verified != 0;
            all.verified = Some(all.verified.unwrap_or(verified) && verified);
        }
        Ok(found.into_iter().map(|(who, _)| who).collect())
    }

    fn principals(&self, issuer: Option<&str>, all: &mut Collected) -> rusqlite::Result<Vec<Who>> {
        let of = "(?2 IS NULL OR issuer = ?2) LIMIT ?3";
        let found = if let Some(shown) = self.shown {
            let keys = params![shown, issuer, MOST_ALIKE];
            self.find(Entity::Principal, &format!("subject = ?1 AND {of}"), keys)?
        } else {
            let keys = params![self.hash, issuer, MOST_ALIKE];
            self.find(Entity::Principal, &format!("hash = ?1 AND {of}"), keys)?
        };
        let mut people = Vec::new();
        for (who, verified) in found {
            let verified = verified != 0;
            all.verified = Some(all.verified.unwrap_or(verified) || verified);
            people.push(Who { claim: !verified, ..who });
        }
        Ok(people)
    }

    fn addresses(&self, net: &IpNet, all: &mut Collected) -> rusqlite::Result<Vec<Who>> {
        let (low, high) = (From::Address(net.network()), From::Address(net.broadcast()));
        let found = if low == high {
            self.find(Entity::Address, "bytes = ?1", params![low.bytes()])?
        } else {
            let (low, mut high) = (low.bytes(), high.bytes());
            let length = i64::try_from(low.len()).unwrap_or(16);
            // Networks sort behind the address that they begin with.
            high.push(u8::MAX);
            let sql = "bytes BETWEEN ?1 AND ?2 AND length(bytes) BETWEEN ?3 AND ?3 + 1 LIMIT ?4";
            self.find(Entity::Address, sql, params![low, high, length, MOST_ADDRESSES])?
        };
        if i64::try_from(found.len()).unwrap_or(i64::MAX) >= MOST_ADDRESSES {
            all.remarks.insert(TOO_WIDE);
        }
        let mut found: Vec<Who> = found.into_iter().map(|(who, _)| who).collect();
        found.sort_by_key(|who| std::cmp::Reverse(who.totals.count));
        Ok(found)
    }

    /// Adds somebody: by rows where there are few, by sums and facets otherwise.
    fn add(&self, who: &Who, named: bool, all: &mut Collected) -> rusqlite::Result<()> {
        if !self.overlaps(&who.totals) {
            return Ok(());
        }
        if who.rows >= HEAVY && self.is_whole() {
            return self.add_facets(who, named, all);
        }
        if who.rows < HEAVY || !self.add_rows(who, named, MOST_ROWS, all)? {
            if who.rows < HEAVY {
                self.add_rows(who, named, i64::MAX, all)?;
            } else {
                all.remarks.insert(WHOLE_PARTS);
                self.add_facets(who, named, all)?;
            }
        }
        Ok(())
    }

    /// Adds rows of the window, unless there are more than so many. Says whether they were added.
    fn add_rows(&self, who: &Who, named: bool, most: i64, all: &mut Collected) -> rusqlite::Result<bool> {
        let from = match who.entity {
            Entity::Token => "uses u LEFT JOIN tokens t ON t.id = u.token WHERE u.token = ?1",
            Entity::Principal => "tokens t JOIN uses u ON u.token = t.id WHERE t.principal = ?1",
            Entity::Address => "uses u LEFT JOIN tokens t ON t.id = u.token WHERE u.address = ?1",
        };
        let columns: Vec<String> = NAMES.split(", ").map(|name| format!("u.{name}")).collect();
        let mut rows = self.part.prepare(&format!(
            "SELECT u.token, coalesce(t.principal, 0), u.address, u.route, u.service, u.beside, {}
             FROM {from} AND u.hour BETWEEN ?2 AND ?3 LIMIT ?4",
            columns.join(", ")
        ))?;
        let hours = |ms: u64| hour(ms / 3_600_000, self.start_ms);
        // An exchange belongs to the hour in which it began, and to its window by its first and last use.
        let range =
            params![who.id, hours(self.window.from_ms), hours(self.window.until_ms), most.saturating_add(1)];
        let read = |row: &rusqlite::Row<'_>| {
            let ids = Ids {
                token: row.get(0)?,
                principal: row.get(1)?,
                address: row.get(2)?,
                route: row.get(3)?,
                service: row.get(4)?,
                beside: row.get(5)?,
            };
            Ok((ids, Totals::read(row, 6, self.start_ms)?))
        };
        let rows: Vec<(Ids, Totals)> = rows.query_map(range, read)?.collect::<Result<_, _>>()?;
        if i64::try_from(rows.len()).unwrap_or(i64::MAX) > most {
            return Ok(false);
        }
        if !self.is_whole() {
            all.remarks.insert(WHOLE_HOURS);
        }
        let mut sums: BTreeMap<(Facet, i64), Totals> = BTreeMap::new();
        let mut whole = Totals::default();
        for (ids, totals) in rows.iter().filter(|(_, totals)| self.overlaps(totals)) {
            if ids.counts_for(who.entity) {
                whole.add(totals);
            }
            for facet in Facet::ALL {
                if let Some(value) = ids.facet(who.entity, facet) {
                    sums.entry((facet, value)).or_default().add(totals);
                }
            }
        }
        self.add_whole(who, &whole, named, all)?;
        for ((facet, value), totals) in sums {
            self.name(facet, value, &totals, who.claim, all)?;
        }
        Ok(true)
    }

    fn add_facets(&self, who: &Who, named: bool, all: &mut Collected) -> rusqlite::Result<()> {
        self.add_whole(who, &who.totals, named, all)?;
        let mut values = self.part.prepare(&format!(
            "SELECT value, {NAMES} FROM facets WHERE entity = ?1 AND id = ?2 AND facet = ?3
             ORDER BY rank DESC LIMIT ?4"
        ))?;
        let spread = "SELECT different FROM spread WHERE entity = ?1 AND id = ?2 AND facet = ?3";
        for facet in Facet::ALL {
            let key = (who.entity as i64, who.id, facet as i64);
            let different: Option<i64> =
                self.part.query_row(spread, params![key.0, key.1, key.2], |row| row.get(0)).optional()?;
            let Some(different) = different else { continue };
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, Totals::read(row, 1, self.start_ms)?));
            let rows = values.query_map(params![key.0, key.1, key.2, MOST_VALUES], read)?;
            for row in rows {
                let (value, totals): (i64, Totals) = row?;
                self.name(facet, value, &totals, who.claim, all)?;
            }
            let spreads = if who.claim { &mut all.claimed_spread } else { &mut all.spread };
            if let Some((most, about)) = spreads.get_mut(facet as usize) {
                *most = (*most).max(u64::try_from(different).unwrap_or(0));
                *about |= different > MOST_VALUES;
            }
        }
        Ok(())
    }

    fn add_whole(
        &self,
        who: &Who,
        totals: &Totals,
        named: bool,
        all: &mut Collected,
    ) -> rusqlite::Result<()> {
        if who.claim { &mut all.claims } else { &mut all.totals }.add(totals);
        if totals.count == 0 {
            return Ok(());
        }
        match who.entity {
            Entity::Address if named => self.name(Facet::Address, who.id, totals, who.claim, all),
            Entity::Address => Ok(()),
            Entity::Principal => self.name(Facet::Principal, who.id, totals, who.claim, all),
            Entity::Token => {
                self.name(Facet::Token, who.id, totals, who.claim, all)?;
                let principal = "SELECT coalesce(principal, 0) FROM tokens WHERE id = ?1";
                match self.part.query_row(principal, [who.id], |row| row.get::<_, i64>(0))? {
                    0 => Ok(()),
                    principal => self.name(Facet::Principal, principal, totals, who.claim, all),
                }
            }
        }
    }

    /// Adds sums under the name that an id of this part has.
    fn name(
        &self,
        facet: Facet,
        id: i64,
        totals: &Totals,
        claim: bool,
        all: &mut Collected,
    ) -> rusqlite::Result<()> {
        let sql = match facet {
            Facet::Service | Facet::Route => "SELECT text, NULL FROM names WHERE id = ?1",
            Facet::Address => "SELECT text, NULL FROM addresses WHERE id = ?1",
            Facet::Token => {
                "SELECT lower(hex(t.fingerprint)), p.subject || iif(p.verified, '', '?')
                 FROM tokens t LEFT JOIN principals p ON p.id = t.principal WHERE t.id = ?1"
            }
            Facet::Principal => {
                "SELECT subject || iif(verified, '', '?'), nullif(issuer, '') FROM principals WHERE id = ?1"
            }
        };
        let named: Option<(String, Option<String>)> =
            self.part.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (name, note) = named.unwrap_or_else(|| ("(unknown)".into(), None));
        let lists = if claim { &mut all.claimed } else { &mut all.facets };
        if let Some(list) = lists.get_mut(facet as usize) {
            let (sum, known) = list.entry(name).or_default();
            sum.add(totals);
            *known = known.take().or(note);
        }
        Ok(())
    }
}
