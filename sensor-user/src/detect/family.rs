//! Client families: what kind of program a client says it is, without its version.

use std::hash::BuildHasher;

use serde::{Deserialize, Serialize};

/// A client family; 0 if the client does not say. The same in every run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Family(pub u16);

impl Family {
    /// Whether both are known and differ.
    #[must_use]
    pub const fn differs(self, other: Self) -> bool {
        self.0 != 0 && other.0 != 0 && self.0 != other.0
    }
}

/// User agents whose family is kept: a power of two. A few hundred user agents are live at a time.
const AGENTS: usize = 512;

/// The families of recent user agents, by hash.
#[derive(Debug)]
pub struct Families {
    agents: Vec<(u64, u16)>,
    seed: foldhash::fast::RandomState,
}

impl Default for Families {
    fn default() -> Self {
        Self { agents: vec![(0, 0); AGENTS], seed: foldhash::fast::RandomState::default() }
    }
}

impl Families {
    /// The family of a user agent.
    #[inline]
    pub fn of(&mut self, agent: &[u8]) -> Family {
        if agent.is_empty() {
            return Family(0);
        }
        let hash = self.seed.hash_one(agent);
        #[allow(clippy::cast_possible_truncation, reason = "the remainder is below AGENTS, which is a usize")]
        let slot = self.agents.get_mut((hash % AGENTS as u64) as usize);
        let Some(slot) = slot else { return Family(family_of(agent)) };
        if slot.0 != hash {
            *slot = (hash, family_of(agent));
        }
        Family(slot.1)
    }
}

/// Browsers say what they are after a long list of what they want to be taken for; the first that matches is meant.
const BROWSERS: [&[u8]; 6] = [b"Edg", b"OPR/", b"Firefox/", b"Chrome/", b"CriOS/", b"Safari/"];

/// A number for the client family: browsers by engine, others by the product's name without version. Never 0.
fn family_of(agent: &[u8]) -> u16 {
    if agent.starts_with(b"Mozilla/") {
        let browser = (2..).zip(BROWSERS).find(|(_, name)| memchr::memmem::find(agent, name).is_some());
        return browser.map_or(1, |(number, _)| number);
    }
    let name = agent.iter().take(32).take_while(|b| !matches!(b, b'/' | b' ' | b'(' | b';'));
    // FNV-1a: the number must not depend on the seed, which differs from run to run.
    let hash =
        name.fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b.to_ascii_lowercase())).wrapping_mul(0x0100_0193));
    u16::try_from((hash ^ (hash >> 16)) & 0xffff).unwrap_or(0).max(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    const FIREFOX_OLD: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

    #[test]
    fn browsers_are_told_apart_by_engine_only() {
        let chrome =
            b"Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
        let edge = b"Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0";
        let families = [chrome.as_slice(), edge, FIREFOX.as_bytes(), b"curl/8.5", b"CURL/7.1", b"okhttp/4"]
            .map(family_of);
        assert_eq!(families[3], families[4]);
        assert_eq!(families.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
        assert_eq!(family_of(FIREFOX.as_bytes()), family_of(FIREFOX_OLD.as_bytes()));
    }
}
