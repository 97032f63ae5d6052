//! A part of the uses: some days of them in a file of its own, complete in itself.
//!
//! Uses go by whole files: deleting a file gives its room back at once, even on a full disk, where deleting rows would
//! want room first. A row is one token, service, route, client and hour, so a busy client adds no rows. Sums are kept
//! for each token, principal and address, and for those with many rows also what they sum up to by service, route and
//! so on ([`facets`](super::facets)): so that a question about the busiest costs what one about anybody does.

mod pen;

use std::path::{Path, PathBuf};

use hashbrown::{HashMap, HashSet};
use rusqlite::Connection;

use crate::store::database::{self, DatabaseError, Schema, kept};
use crate::store::uses::Gathered;
use crate::store::veil::{From, Veil};
use crate::token::Fingerprint;

use pen::Pen;

/// Rows from which on an entity has facets. Fewer are read one by one: at 4 KiB a page and 0.1 ms a page from a cold
/// disk, that takes 13 ms a part at most.
pub const HEAVY: i64 = 128;

/// Ids that are remembered of each kind: some 60 bytes each, so 24 MiB at most. Others are looked up.
const MOST_IDS: usize = 100_000;

/// Names of routes and services in a part; later ones are one. Routes are learned, and bounded where they are learned,
/// but a part outlives what was learned.
const MOST_NAMES: i64 = 100_000;

pub(super) const SCHEMA: Schema = Schema { what: "a part of uses", kind: 1, steps: &[STEP_1] };

const STEP_1: &str = "
CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE names(id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE addresses(id INTEGER PRIMARY KEY, bytes BLOB NOT NULL UNIQUE, text TEXT NOT NULL,
    count INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL, response_bytes INTEGER NOT NULL, ok INTEGER NOT NULL,
    redirected INTEGER NOT NULL, refused INTEGER NOT NULL, failed INTEGER NOT NULL, errors INTEGER NOT NULL,
    rows INTEGER NOT NULL);
CREATE TABLE principals(id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, issuer TEXT NOT NULL, verified INTEGER NOT NULL,
    subject TEXT NOT NULL,
    count INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL, response_bytes INTEGER NOT NULL, ok INTEGER NOT NULL,
    redirected INTEGER NOT NULL, refused INTEGER NOT NULL, failed INTEGER NOT NULL, errors INTEGER NOT NULL,
    rows INTEGER NOT NULL, UNIQUE(hash, issuer, verified));
CREATE INDEX principals_subject ON principals(subject);
CREATE TABLE tokens(id INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL UNIQUE, jti_hash INTEGER, jti TEXT,
    principal INTEGER, verified INTEGER NOT NULL,
    count INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL, response_bytes INTEGER NOT NULL, ok INTEGER NOT NULL,
    redirected INTEGER NOT NULL, refused INTEGER NOT NULL, failed INTEGER NOT NULL, errors INTEGER NOT NULL,
    rows INTEGER NOT NULL);
CREATE INDEX tokens_jti ON tokens(jti_hash) WHERE jti_hash IS NOT NULL;
CREATE INDEX tokens_principal ON tokens(principal) WHERE principal IS NOT NULL;
CREATE TABLE uses(token INTEGER NOT NULL, hour INTEGER NOT NULL, address INTEGER NOT NULL, route INTEGER NOT NULL,
    service INTEGER NOT NULL, beside INTEGER NOT NULL,
    count INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL, response_bytes INTEGER NOT NULL, ok INTEGER NOT NULL,
    redirected INTEGER NOT NULL, refused INTEGER NOT NULL, failed INTEGER NOT NULL, errors INTEGER NOT NULL,
    PRIMARY KEY(token, hour, address, route, service, beside)) WITHOUT ROWID;
CREATE INDEX uses_address ON uses(address, hour);
CREATE TABLE facets(entity INTEGER NOT NULL, id INTEGER NOT NULL, facet INTEGER NOT NULL, value INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    count INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL, response_bytes INTEGER NOT NULL, ok INTEGER NOT NULL,
    redirected INTEGER NOT NULL, refused INTEGER NOT NULL, failed INTEGER NOT NULL, errors INTEGER NOT NULL,
    PRIMARY KEY(entity, id, facet, value)) WITHOUT ROWID;
CREATE INDEX facets_rank ON facets(entity, id, facet, rank);
CREATE TABLE spread(entity INTEGER NOT NULL, id INTEGER NOT NULL, facet INTEGER NOT NULL, different INTEGER NOT NULL,
    PRIMARY KEY(entity, id, facet)) WITHOUT ROWID;
CREATE INDEX addresses_heavy ON addresses(id) WHERE rows >= 128;
CREATE INDEX principals_heavy ON principals(id) WHERE rows >= 128;
CREATE INDEX tokens_heavy ON tokens(id) WHERE rows >= 128;
";

/// What uses are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Entity {
    Token = 0,
    Principal = 1,
    Address = 2,
}

impl Entity {
    pub(super) const ALL: [Self; 3] = [Self::Token, Self::Principal, Self::Address];

    /// The table that holds its sums.
    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::Token => "tokens",
            Self::Principal => "principals",
            Self::Address => "addresses",
        }
    }
}

/// What uses of an entity are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Facet {
    Service = 0,
    Route = 1,
    Address = 2,
    Token = 3,
    Principal = 4,
}

impl Facet {
    pub(super) const ALL: [Self; 5] =
        [Self::Service, Self::Route, Self::Address, Self::Token, Self::Principal];
}

/// One row, by the ids that its part gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids {
    /// 0 for none.
    pub(super) token: i64,
    /// 0 for none.
    pub(super) principal: i64,
    pub(super) address: i64,
    pub(super) route: i64,
    pub(super) service: i64,
    pub(super) beside: bool,
}

impl Ids {
    /// The entities of the row.
    pub(super) fn entities(&self) -> impl Iterator<Item = (Entity, i64)> {
        [(Entity::Token, self.token), (Entity::Principal, self.principal), (Entity::Address, self.address)]
            .into_iter()
            .filter(|(_, id)| *id != 0)
    }

    /// What the row adds to an entity: a request that carries several tokens is one request of its client.
    pub(super) const fn counts_for(&self, entity: Entity) -> bool {
        !self.beside || !matches!(entity, Entity::Address)
    }

    /// The value of a facet, where it tells anything.
    pub(super) fn facet(&self, entity: Entity, facet: Facet) -> Option<i64> {
        let (value, same, whose) = match facet {
            Facet::Service => (self.service, false, self.counts_for(entity)),
            Facet::Route => (self.route, false, self.counts_for(entity)),
            Facet::Address => (self.address, entity == Entity::Address, true),
            Facet::Token => (self.token, entity == Entity::Token, true),
            Facet::Principal => (self.principal, matches!(entity, Entity::Principal | Entity::Token), true),
        };
        (value != 0 && !same && whose).then_some(value)
    }
}

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Ids that were looked up before.
#[derive(Debug, Default)]
pub(super) struct Known {
    names: Map<String, i64>,
    addresses: Map<From, i64>,
    /// Token, principal, and whether it is verified.
    tokens: Map<Fingerprint, (i64, i64, bool)>,
    heavy: HashSet<(Entity, i64), foldhash::fast::RandomState>,
    /// Names in the part.
    named: i64,
}

impl Known {
    fn trim(&mut self) {
        if self.names.len() > MOST_IDS {
            self.names.clear();
        }
        if self.addresses.len() > MOST_IDS {
            self.addresses.clear();
        }
        if self.tokens.len() > MOST_IDS {
            self.tokens.clear();
        }
    }
}

/// A part, open for its one writer.
#[derive(Debug)]
pub struct Part {
    connection: Connection,
    path: PathBuf,
    start_ms: u64,
    known: Known,
    /// Rows of uses.
    rows: u64,
    /// Of these, those that nobody vouched for when they were made.
    strangers: u64,
}

impl Part {
    /// Opens the part that begins then, and makes it if it is not there.
    ///
    /// # Errors
    /// As [`database::open`].
    pub fn open(path: &Path, start_ms: u64) -> Result<Self, DatabaseError> {
        let (connection, _) = database::open(path, &SCHEMA)?;
        let failed = || DatabaseError::of(path);
        let number = |name| Ok(kept(&connection, name)?.and_then(|n| u64::try_from(n).ok()).unwrap_or(0));
        let rows = number("rows").map_err(failed())?;
        let strangers = number("strangers").map_err(failed())?;
        let known = Self::learn(&connection).map_err(failed())?;
        Ok(Self { connection, path: path.to_owned(), start_ms, known, rows, strangers })
    }

    fn learn(connection: &Connection) -> rusqlite::Result<Known> {
        let mut known = Known::default();
        for entity in Entity::ALL {
            let sql = format!("SELECT id FROM {} WHERE rows >= 128", entity.table());
            let mut heavy = connection.prepare(&sql)?;
            for id in heavy.query_map([], |row| row.get(0))? {
                known.heavy.insert((entity, id?));
            }
        }
        known.named = connection.query_row("SELECT count(*) FROM names", [], |row| row.get(0))?;
        Ok(known)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When it begins.
    #[must_use]
    pub const fn start_ms(&self) -> u64 {
        self.start_ms
    }

    /// Bytes of the file once its log is folded in.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let pragma = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let pages = pragma("page_count").unwrap_or(0).saturating_mul(pragma("page_size").unwrap_or(0));
        u64::try_from(pages).unwrap_or(0)
    }

    /// Rows of uses in it, and how many of them nobody vouched for.
    #[must_use]
    pub const fn rows(&self) -> (u64, u64) {
        (self.rows, self.strangers)
    }

    /// Stores uses, all or none. `services` are the names of the gathered services, in their order.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, gathered: &Gathered, services: &[String], veil: &Veil) -> rusqlite::Result<()> {
        let written = self.try_write(gathered, services, veil);
        match written {
            Ok((rows, strangers)) => {
                self.rows += rows;
                self.strangers += strangers;
                self.known.trim();
            }
            // Ids that were given in vain are forgotten with everything else that was.
            Err(_) => self.known = Self::learn(&self.connection).unwrap_or_default(),
        }
        written.map(drop)
    }

    fn try_write(
        &mut self,
        gathered: &Gathered,
        services: &[String],
        veil: &Veil,
    ) -> rusqlite::Result<(u64, u64)> {
        let all = self.connection.transaction()?;
        let mut pen = Pen::new(&all, &mut self.known, self.start_ms)?;
        let done = pen.write(gathered, services, veil)?;
        drop(pen);
        for (name, number) in
            [("rows", self.rows + done.rows), ("strangers", self.strangers + done.strangers)]
        {
            database::keep(&all, name, i64::try_from(number).unwrap_or(i64::MAX))?;
        }
        all.commit()?;
        Ok((done.rows, done.strangers))
    }

    /// Folds the log in and closes the file.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn close(self) -> rusqlite::Result<()> {
        database::close(self.connection)
    }
}

/// The hour of a part: since the one in which it begins.
pub(super) fn hour(since_epoch: u64, start_ms: u64) -> i64 {
    let plain = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    plain(since_epoch).saturating_sub(plain(start_ms / 3_600_000))
}
