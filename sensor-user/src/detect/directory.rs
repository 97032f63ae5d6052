//! Accounts that tokens name against the directory of accounts: who is not in it.
//!
//! Directories are of one provider, and tokens may be of several, or call people by other names. So an issuer is judged
//! only where the directory knows most of its accounts.

use crate::detect::roster::stable_hash;
use crate::detect::spelling::Directory;
use crate::detect::table::Table;
use crate::detect::{Case, Column, Slot};
use crate::token::TokenUse;

/// Issuers whose accounts are held against the directory.
const MAX_ISSUERS: usize = 64;

/// An unknown account is told again after so many seconds of use.
const AGAIN_S: u32 = 86_400;

/// Accounts against the directory. Not kept over a restart, which only costs looking again.
#[derive(Debug)]
pub struct Accounts {
    /// Principals of an issuer that the directory must know.
    known: u32,
    revision: u32,
    principals: Column<Account>,
    /// By issuer: principals that the directory knows, and that it does not.
    issuers: Table<u64, (u32, u32)>,
}

/// A principal as the directory has it: 12 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// The knowledge that it was looked up in, plus one.
    revision: u32,
    unknown: bool,
    told_s: u32,
}

impl Accounts {
    /// Judges issuers of whom the directory knows so many accounts.
    #[must_use]
    pub fn new(known: u32) -> Self {
        Self { known, revision: 0, principals: Column::default(), issuers: Table::new(MAX_ISSUERS) }
    }

    /// Whether the directory does not know the account that this token names, and it is time to say so.
    pub fn is_unknown(&mut self, case: &Case<'_>, subject: Slot, held: &TokenUse) -> bool {
        let directory = case.knowledge.directory.as_ref();
        directory.and_then(|directory| self.look(case, directory, subject, held)).unwrap_or_default()
    }

    fn look(
        &mut self,
        case: &Case<'_>,
        directory: &Directory,
        subject: Slot,
        held: &TokenUse,
    ) -> Option<bool> {
        let revision = case.knowledge.revision.wrapping_add(1);
        if self.revision != revision {
            self.revision = revision;
            self.issuers = Table::new(MAX_ISSUERS);
        }
        let account = self.principals.of(subject);
        let fresh = account.revision != revision;
        if !fresh && !account.unknown {
            return Some(false);
        }
        let name = held.token.subject.as_deref()?;
        let issuer = stable_hash(held.token.issuer.as_deref().unwrap_or_default());
        let counts = self.issuers.get_or(issuer, <(u32, u32)>::default)?;
        if fresh {
            (account.revision, account.unknown) =
                (revision, !directory.knows(name, &case.knowledge.spelling));
            *(if account.unknown { &mut counts.1 } else { &mut counts.0 }) += 1;
        }
        // A directory that does not know a quarter of an issuer's accounts does not speak of them.
        let (known, unknown) = *counts;
        let speaks = known >= self.known && unknown <= (known / 4).max(1);
        let at_s = case.second();
        let due = account.told_s == 0 || at_s.saturating_sub(account.told_s) >= AGAIN_S;
        if !account.unknown || !speaks || !due {
            return Some(false);
        }
        account.told_s = at_s;
        Some(true)
    }
}
