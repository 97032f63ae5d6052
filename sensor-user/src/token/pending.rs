//! The texts of tokens that cannot be judged yet, kept for when their keys arrive: bounded, wiped when dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use zeroize::Zeroizing;

use crate::capture::Time;
use crate::token::facts::{Signature, Token, Unchecked};

/// How long a text waits: longer than the longest pause between two attempts to fetch keys (ten minutes), by half.
const PATIENCE: Duration = Duration::from_mins(15);

/// What each entry costs besides its text: the maps' shares and the allocation.
const OVERHEAD: usize = 128;

/// A token that waits.
pub(super) struct Waiting {
    /// Its text.
    pub(super) text: Zeroizing<Box<[u8]>>,
    /// What is known of it.
    pub(super) token: Arc<Token>,
    since: Time,
    unknown_kid: bool,
}

/// All that wait, in order of arrival.
pub(super) struct Pending {
    waiting: HashMap<u128, Waiting, foldhash::fast::RandomState>,
    order: VecDeque<u128>,
    bytes: usize,
    /// The part of `bytes` that is there for unknown key ids.
    unknown_bytes: usize,
    max_bytes: usize,
}

impl Pending {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { waiting: HashMap::default(), order: VecDeque::new(), bytes: 0, unknown_bytes: 0, max_bytes }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether tokens wait for a look at their issuer's keys.
    pub(super) const fn has_unknown(&self) -> bool {
        self.unknown_bytes > 0
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Keeps a text; false if there is no room. Made-up key ids may take half the room, so that they cannot keep
    /// out the tokens of an issuer whose keys have not come.
    pub(super) fn keep(&mut self, key: u128, text: &[u8], token: &Arc<Token>, now: Time) -> bool {
        self.expire(now);
        self.remove(key);
        let cost = text.len() + OVERHEAD;
        let unknown_kid = token.signature == Signature::Unchecked(Unchecked::KeyUnknown);
        let crowded = unknown_kid && self.unknown_bytes + cost > self.max_bytes / 2;
        // The queue may hold names of texts long gone; it is never more than twice as long as need be.
        if crowded || self.bytes + cost > self.max_bytes {
            return false;
        }
        self.bytes += cost;
        self.unknown_bytes += if unknown_kid { cost } else { 0 };
        let text = Zeroizing::new(text.into());
        self.waiting.insert(key, Waiting { text, token: Arc::clone(token), since: now, unknown_kid });
        if self.order.len() >= 2 * self.waiting.len() + 16 {
            let waiting = &self.waiting;
            self.order.retain(|key| waiting.contains_key(key));
        }
        self.order.push_back(key);
        true
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, key: u128) -> Option<Waiting> {
        let gone = self.waiting.remove(&key)?;
        let cost = gone.text.len() + OVERHEAD;
        self.bytes -= cost;
        self.unknown_bytes -= if gone.unknown_kid { cost } else { 0 };
        Some(gone)
    }

    /// The one that has waited longest, to be judged or put back.
    pub(super) fn pop(&mut self) -> Option<(u128, Waiting)> {
        while let Some(key) = self.order.pop_front() {
            if let Some(waiting) = self.remove(key) {
                return Some((key, waiting));
            }
        }
        None
    }

    /// Drops those that have waited too long.
    fn expire(&mut self, now: Time) {
        while let Some(key) = self.order.front() {
            match self.waiting.get(key) {
                Some(waiting) if waiting.since.plus(PATIENCE) > now => return,
                _ => {
                    let key = *key;
                    self.order.pop_front();
                    self.remove(key);
                }
            }
        }
    }
}
