//! What is remembered of login accounts. Accounts that have logged in are kept apart from those that have only failed:
//! inventing names can push out other inventions, and never the history of a real account.

use serde::{Deserialize, Deserializer, Serialize};

use crate::detect::table::Table;

/// Accounts that have logged in. A hash and a small value take about 50 bytes each.
const MAX_REAL: usize = 100_000;

/// Accounts that have only failed.
const MAX_TRIED: usize = 20_000;

/// Accounts by the hash of their names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "T: Serialize", deserialize = "T: Deserialize<'de>"))]
pub struct Accounts<T> {
    #[serde(deserialize_with = "real")]
    real: Table<u64, T>,
    #[serde(deserialize_with = "tried")]
    tried: Table<u64, T>,
}

fn real<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Table<u64, T>, D::Error> {
    limited(from, MAX_REAL)
}

fn tried<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Table<u64, T>, D::Error> {
    limited(from, MAX_TRIED)
}

/// A table as it was saved, within its cap.
///
/// # Errors
/// When it is none.
pub fn limited<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
    cap: usize,
) -> Result<Table<u64, T>, D::Error> {
    let mut table = Table::deserialize(from)?;
    table.limit(cap);
    Ok(table)
}

impl<T> Default for Accounts<T> {
    fn default() -> Self {
        Self { real: Table::new(MAX_REAL), tried: Table::new(MAX_TRIED) }
    }
}

impl<T: Default> Accounts<T> {
    /// What is remembered of an account, and whether it has ever logged in, this attempt included.
    pub fn of(&mut self, account: u64, failed: bool) -> Option<(&mut T, bool)> {
        let hash = self.real.hash_of(&account);
        if let Some(at) = self.real.position(hash, |known| *known == account) {
            return self.real.at(at).map(|value| (value, true));
        }
        if failed {
            return self.tried.get_or(account, T::default).map(|value| (value, false));
        }
        let tried = self.tried.hash_of(&account);
        let value = self.tried.remove(tried, |known| *known == account).map(|(_, value)| value);
        let at = self.real.place(hash, account, value.unwrap_or_default()).0;
        self.real.at(at).map(|value| (value, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_accounts_do_not_push_out_real_ones() {
        let mut accounts = Accounts::<u32>::default();
        *accounts.of(1, false).unwrap().0 = 7;
        for name in 0..100_000_u64 {
            accounts.of(name + 1000, true);
        }
        assert_eq!(accounts.of(1, true), Some((&mut 7, true)));
        assert_eq!(accounts.tried.len(), MAX_TRIED);
    }

    #[test]
    fn who_gets_in_takes_its_history_along() {
        let mut accounts = Accounts::<u32>::default();
        *accounts.of(1, true).unwrap().0 = 7;
        assert_eq!(accounts.of(1, false), Some((&mut 7, true)));
        assert!(accounts.tried.is_empty());
        let saved = postcard::to_allocvec(&accounts).unwrap();
        let mut read: Accounts<u32> = postcard::from_bytes(&saved).unwrap();
        assert_eq!(read.of(1, true), Some((&mut 7, true)));
        assert_eq!((read.real.cap(), read.tried.cap()), (MAX_REAL, MAX_TRIED));
    }
}
