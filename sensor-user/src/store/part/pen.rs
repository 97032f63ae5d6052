//! Writing uses into a part: names become ids, rows are made or added to, sums and facets follow.

use std::hash::BuildHasher;

use hashbrown::HashMap;
use rusqlite::{OptionalExtension as _, Statement, Transaction, params, params_from_iter};
use smallvec::SmallVec;

use super::{Entity, Facet, HEAVY, Ids, Known, MOST_NAMES, Map, hour};
use crate::detect::scene;
use crate::store::totals::{ADD, NAMES, Totals, VALUES};
use crate::store::uses::{Gathered, Key, Use};
use crate::store::veil::{From, Veil};
use crate::token::Token;

/// The name that stands for those that found no room.
const OTHERS: &str = "(others)";

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// New rows.
    pub(super) rows: u64,
    /// Of these, those of strangers.
    pub(super) strangers: u64,
}

/// Sums of an entity, and its new rows.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    totals: Totals,
    rows: i64,
}

/// The statements that write uses, within one transaction.
pub(super) struct Pen<'t> {
    known: &'t mut Known,
    start_ms: u64,
    find_name: Statement<'t>,
    add_name: Statement<'t>,
    find_address: Statement<'t>,
    add_address: Statement<'t>,
    find_principal: Statement<'t>,
    add_principal: Statement<'t>,
    find_token: Statement<'t>,
    add_token: Statement<'t>,
    settle_token: Statement<'t>,
    more_use: Statement<'t>,
    new_use: Statement<'t>,
    sums: [Statement<'t>; 3],
    more_facet: Statement<'t>,
    rank_facet: Statement<'t>,
    new_facet: Statement<'t>,
    spread: Statement<'t>,
    rows_of: [Statement<'t>; 3],
}

const NO_SUM: &str = "0, 9223372036854775807, -9223372036854775808, 0, 0, 0, 0, 0, 0, 0, 0";

impl<'t> Pen<'t> {
    pub(super) fn new(
        all: &'t Transaction<'_>,
        known: &'t mut Known,
        start_ms: u64,
    ) -> rusqlite::Result<Self> {
        let say = |sql: String| all.prepare(&sql);
        let sum = |entity: Entity| {
            say(format!(
                "UPDATE {} SET {ADD}, rows = rows + ?11 WHERE id = ?12 RETURNING rows",
                entity.table()
            ))
        };
        let rows_of = |from: &str| {
            say(format!(
                "SELECT u.token, coalesce(t.principal, 0), u.address, u.route, u.service, u.beside, {} FROM {from}",
                columns("u")
            ))
        };
        let key =
            "token = ?11 AND hour = ?12 AND address = ?13 AND route = ?14 AND service = ?15 AND beside = ?16";
        let facet = "entity = ?11 AND id = ?12 AND facet = ?13 AND value = ?14";
        Ok(Self {
            known,
            start_ms,
            find_name: say("SELECT id FROM names WHERE text = ?1".into())?,
            add_name: say("INSERT INTO names(text) VALUES(?1)".into())?,
            find_address: say("SELECT id FROM addresses WHERE bytes = ?1".into())?,
            add_address: say(format!(
                "INSERT INTO addresses(bytes, text, {NAMES}, rows) VALUES(?1, ?2, {NO_SUM})"
            ))?,
            find_principal: say(
                "SELECT id FROM principals WHERE hash = ?1 AND issuer = ?2 AND verified = ?3".into(),
            )?,
            add_principal: say(format!(
                "INSERT INTO principals(hash, issuer, verified, subject, {NAMES}, rows) VALUES(?1, ?2, ?3, ?4, {NO_SUM})"
            ))?,
            find_token: say(
                "SELECT id, coalesce(principal, 0), verified FROM tokens WHERE fingerprint = ?1".into(),
            )?,
            add_token: say(format!(
                "INSERT INTO tokens(fingerprint, jti_hash, jti, principal, verified, {NAMES}, rows)
                 VALUES(?1, ?2, ?3, ?4, ?5, {NO_SUM})"
            ))?,
            settle_token: say("UPDATE tokens SET principal = ?2, verified = ?3 WHERE id = ?1".into())?,
            more_use: say(format!("UPDATE uses SET {ADD} WHERE {key}"))?,
            new_use: say(format!(
                "INSERT INTO uses({NAMES}, token, hour, address, route, service, beside)
                 VALUES({VALUES}, ?11, ?12, ?13, ?14, ?15, ?16)"
            ))?,
            sums: [sum(Entity::Token)?, sum(Entity::Principal)?, sum(Entity::Address)?],
            more_facet: say(format!("UPDATE facets SET {ADD} WHERE {facet} RETURNING count, rank"))?,
            rank_facet: say(
                "UPDATE facets SET rank = ?5 WHERE entity = ?1 AND id = ?2 AND facet = ?3 AND value = ?4"
                    .into(),
            )?,
            new_facet: say(format!(
                "INSERT INTO facets({NAMES}, entity, id, facet, value, rank) VALUES({VALUES}, ?11, ?12, ?13, ?14, ?15)"
            ))?,
            spread: say("INSERT INTO spread(entity, id, facet, different) VALUES(?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET different = different + excluded.different"
                .into())?,
            rows_of: [
                rows_of("uses u LEFT JOIN tokens t ON t.id = u.token WHERE u.token = ?1")?,
                rows_of("tokens t JOIN uses u ON u.token = t.id WHERE t.principal = ?1")?,
                rows_of("uses u LEFT JOIN tokens t ON t.id = u.token WHERE u.address = ?1")?,
            ],
        })
    }

    /// Writes everything that was gathered.
    pub(super) fn write(
        &mut self,
        gathered: &Gathered,
        services: &[String],
        veil: &Veil,
    ) -> rusqlite::Result<Written> {
        let routes = shown_routes(gathered, veil);
        let routes = routes.iter().map(|route| self.name(route)).collect::<Result<Vec<_>, _>>()?;
        let services = services.iter().map(|service| self.name(service)).collect::<Result<Vec<_>, _>>()?;
        let mut rows = Vec::with_capacity(gathered.uses.len());
        for Use { key, totals } in &gathered.uses {
            let named = |ids: &[i64], place: u32| ids.get(place as usize).copied().unwrap_or_default();
            let (token, principal, _) = match gathered.token_of(key) {
                Some(token) => self.token(token, veil)?,
                None => (0, 0, false),
            };
            let ids = Ids {
                token,
                principal,
                address: self.address(key.from)?,
                route: named(&routes, key.route),
                service: named(&services, key.service),
                beside: key.beside,
            };
            rows.push((ids, key, totals));
        }
        // New tokens have the highest ids: in this order, pages are filled one after another.
        rows.sort_unstable_by_key(|(ids, key, _)| (ids.token, key.hour, ids.address));
        self.write_rows(&rows, gathered)
    }

    fn write_rows(
        &mut self,
        rows: &[(Ids, &Key, &Totals)],
        gathered: &Gathered,
    ) -> rusqlite::Result<Written> {
        let mut written = Written::default();
        let mut sums: Map<(Entity, i64), Sum> = Map::default();
        let mut facets: Map<(Entity, i64, Facet, i64), Totals> = Map::default();
        for (ids, key, totals) in rows {
            let is_new = self.add_use(ids, key, totals)?;
            written.rows += u64::from(is_new);
            written.strangers += u64::from(is_new && is_strange(key, totals, gathered));
            for (entity, id) in ids.entities() {
                let sum = sums.entry((entity, id)).or_default();
                sum.rows += i64::from(is_new);
                if ids.counts_for(entity) {
                    sum.totals.add(totals);
                }
                if self.known.heavy.contains(&(entity, id)) {
                    add_facets(&mut facets, ids, (entity, id), totals);
                }
            }
        }
        for ((entity, id), sum) in sums {
            let rows = self.add_sum(entity, id, &sum)?;
            if rows >= HEAVY && self.known.heavy.insert((entity, id)) {
                self.build_facets(&mut facets, entity, id)?;
            }
        }
        self.add_facets(&facets)?;
        Ok(written)
    }

    fn add_use(&mut self, ids: &Ids, key: &Key, totals: &Totals) -> rusqlite::Result<bool> {
        let mut values = self.values(totals);
        let hour = hour(u64::from(key.hour), self.start_ms);
        values.extend([ids.token, hour, ids.address, ids.route, ids.service, i64::from(ids.beside)]);
        if self.more_use.execute(params_from_iter(&values))? > 0 {
            return Ok(false);
        }
        self.new_use.execute(params_from_iter(&values))?;
        Ok(true)
    }

    fn add_sum(&mut self, entity: Entity, id: i64, sum: &Sum) -> rusqlite::Result<i64> {
        let mut values = self.values(&sum.totals);
        if sum.totals.count == 0 {
            // Nothing that would move the times.
            values.as_mut_slice().iter_mut().skip(1).take(2).for_each(|time| *time = i64::MAX);
            if let Some(last) = values.get_mut(2) {
                *last = i64::MIN;
            }
        }
        values.extend([sum.rows, id]);
        let Some(statement) = self.sums.get_mut(entity as usize) else { return Ok(0) };
        statement.query_row(params_from_iter(&values), |row| row.get(0))
    }

    /// Facets of an entity that has many rows from now on: of every row that it has.
    fn build_facets(
        &mut self,
        facets: &mut Map<(Entity, i64, Facet, i64), Totals>,
        entity: Entity,
        id: i64,
    ) -> rusqlite::Result<()> {
        let Some(statement) = self.rows_of.get_mut(entity as usize) else { return Ok(()) };
        let mut rows = statement.query([id])?;
        while let Some(row) = rows.next()? {
            let ids = Ids {
                token: row.get(0)?,
                principal: row.get(1)?,
                address: row.get(2)?,
                route: row.get(3)?,
                service: row.get(4)?,
                beside: row.get(5)?,
            };
            add_facets(facets, &ids, (entity, id), &Totals::read(row, 6, self.start_ms)?);
        }
        Ok(())
    }

    fn add_facets(&mut self, facets: &Map<(Entity, i64, Facet, i64), Totals>) -> rusqlite::Result<()> {
        let mut spread: Map<(Entity, i64, Facet), i64> = Map::default();
        for ((entity, id, facet, value), totals) in facets {
            let mut values = self.values(totals);
            let key = [*entity as i64, *id, *facet as i64, *value];
            values.extend(key);
            let known: Option<(i64, i64)> = self
                .more_facet
                .query_row(params_from_iter(&values), |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if let Some((count, rank)) = known {
                if rank != rank_of(count) {
                    let [entity, id, facet, value] = key;
                    self.rank_facet.execute([entity, id, facet, value, rank_of(count)])?;
                }
                continue;
            }
            values.push(rank_of(i64::try_from(totals.count).unwrap_or(i64::MAX)));
            self.new_facet.execute(params_from_iter(&values))?;
            *spread.entry((*entity, *id, *facet)).or_default() += 1;
        }
        for ((entity, id, facet), more) in spread {
            self.spread.execute([entity as i64, id, facet as i64, more])?;
        }
        Ok(())
    }

    fn values(&self, totals: &Totals) -> SmallVec<[i64; 16]> {
        SmallVec::from_slice(&totals.values(self.start_ms))
    }

    fn name(&mut self, text: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.known.names.get(text) {
            return Ok(*id);
        }
        let found = self.find_name.query_row([text], |row| row.get(0)).optional()?;
        let id = match found {
            Some(id) => id,
            None if self.known.named >= MOST_NAMES && text != OTHERS => return self.name(OTHERS),
            None => {
                self.known.named += 1;
                self.add_name.insert([text])?
            }
        };
        self.known.names.insert(text.to_owned(), id);
        Ok(id)
    }

    fn address(&mut self, from: From) -> rusqlite::Result<i64> {
        if let Some(id) = self.known.addresses.get(&from) {
            return Ok(*id);
        }
        let bytes = from.bytes();
        let found = self.find_address.query_row([&bytes], |row| row.get(0)).optional()?;
        let id = match found {
            Some(id) => id,
            None => self.add_address.insert(params![bytes, from.to_string()])?,
        };
        self.known.addresses.insert(from, id);
        Ok(id)
    }

    /// The ids of a token and of its principal, and whether it is verified.
    fn token(&mut self, token: &Token, veil: &Veil) -> rusqlite::Result<(i64, i64, bool)> {
        let (name, is_verified) = (token.fingerprint, token.is_verified());
        let known = match self.known.tokens.get(&name) {
            Some(known) => Some(*known),
            None => self
                .find_token
                .query_row([&name.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?,
        };
        let known = match known {
            Some(known @ (_, _, verified)) if verified || !is_verified => known,
            Some((id, ..)) => {
                // What was only claimed is proven now.
                let principal = self.principal(token, veil)?;
                self.settle_token.execute(params![id, some(principal), is_verified])?;
                (id, principal, is_verified)
            }
            None => {
                let principal = self.principal(token, veil)?;
                let jti = token.id.as_ref().map(|id| veil.token_id(&id.text()));
                let (hash, shown) = jti.map_or((None, None), |(hash, shown)| (Some(hash), shown));
                let row = params![name.0, hash, shown, some(principal), is_verified];
                (self.add_token.insert(row)?, principal, is_verified)
            }
        };
        self.known.tokens.insert(name, known);
        Ok(known)
    }

    fn principal(&mut self, token: &Token, veil: &Veil) -> rusqlite::Result<i64> {
        let Some(principal) = scene::principal(token) else { return Ok(0) };
        let subject = veil.subject(&principal.subject);
        let issuer = principal.issuer.as_deref().unwrap_or_default();
        let key = params![subject.hash, issuer, principal.verified];
        if let Some(id) = self.find_principal.query_row(key, |row| row.get(0)).optional()? {
            return Ok(id);
        }
        self.add_principal.insert(params![subject.hash, issuer, principal.verified, subject.shown])
    }
}

/// Whether nobody vouches for a use.
fn is_strange(key: &Key, totals: &Totals, gathered: &Gathered) -> bool {
    let vouched = gathered.token_of(key).is_some_and(Token::is_verified);
    !vouched && totals.ok == 0
}

fn add_facets<S: BuildHasher>(
    facets: &mut HashMap<(Entity, i64, Facet, i64), Totals, S>,
    ids: &Ids,
    (entity, id): (Entity, i64),
    totals: &Totals,
) {
    for facet in Facet::ALL {
        if let Some(value) = ids.facet(entity, facet) {
            facets.entry((entity, id, facet, value)).or_default().add(totals);
        }
    }
}

/// Half as many requests are one rank less: a rank changes seldom, so that keeping the order by rank costs little.
fn rank_of(count: i64) -> i64 {
    i64::from(u64::try_from(count).unwrap_or(0).max(1).ilog2())
}

fn some(id: i64) -> Option<i64> {
    (id != 0).then_some(id)
}

fn columns(table: &str) -> String {
    let all: Vec<String> = NAMES.split(", ").map(|name| format!("{table}.{name}")).collect();
    all.join(", ")
}

/// Routes as they may be stored: those who used a route may be named in it.
fn shown_routes(gathered: &Gathered, veil: &Veil) -> Vec<String> {
    let mut people: Vec<Vec<&str>> = vec![Vec::new(); gathered.routes.len()];
    for Use { key, .. } in &gathered.uses {
        let subject = gathered.token_of(key).and_then(|token| token.subject.as_deref());
        let route = gathered.routes.get(key.route as usize);
        if let (Some(subject), Some(route), Some(list)) = (subject, route, people.get_mut(key.route as usize))
            && memchr::memmem::find(route.as_bytes(), subject.as_bytes()).is_some()
            && !list.contains(&subject)
        {
            list.push(subject);
        }
    }
    let routes = gathered.routes.iter().zip(people);
    routes.map(|(route, people)| veil.route(route, people.into_iter())).collect()
}
