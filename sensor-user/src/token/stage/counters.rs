//! What the token stage has done, for metrics.

use crate::token::facts::{Signature, Unchecked};

/// What the stage has done. Counts distinct judgements, not uses, unless it says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Uses of tokens.
    pub uses: u64,
    /// Uses answered from the cache.
    pub hits: u64,
    /// Uses of texts not in the cache.
    pub misses: u64,
    /// Tokens that had to leave the cache.
    pub evictions: u64,
    /// Judged: verified.
    pub verified: u64,
    /// Judged: invalid.
    pub invalid: u64,
    /// Judged: no signature worth the name.
    pub absent: u64,
    /// Judged: of no configured issuer.
    pub no_issuer: u64,
    /// Judged: opaque, encrypted, malformed.
    pub unreadable: u64,
    /// Put off: the issuer's keys have not come.
    pub keys_pending: u64,
    /// Put off: the issuer has no such key.
    pub key_unknown: u64,
    /// Put off: too much work at once, or no room to keep the text.
    pub over_budget: u64,
    /// Handed to workers.
    pub queued: u64,
    /// Requests with an ambiguous set of credentials.
    pub ambiguous: u64,
    /// Tokens that were seen to be issued.
    pub issued: u64,
    /// Bytes of texts kept now.
    pub pending_bytes: u64,
    /// Tokens in the cache now.
    pub cached: u64,
    /// Issuers whose keys are ready now.
    pub issuers_ready: u64,
    /// Issuers whose keys are missing or failed now.
    pub issuers_waiting: u64,
}

impl Counters {
    /// Counts a judgement.
    pub(super) const fn judged(&mut self, signature: Signature) {
        let counter = match signature {
            Signature::Verified => &mut self.verified,
            Signature::Invalid => &mut self.invalid,
            Signature::Absent => &mut self.absent,
            Signature::Unchecked(Unchecked::NoIssuer) => &mut self.no_issuer,
            Signature::Unchecked(Unchecked::KeysPending) => &mut self.keys_pending,
            Signature::Unchecked(Unchecked::KeyUnknown | Unchecked::KeyWithdrawn) => &mut self.key_unknown,
            Signature::Unchecked(Unchecked::Unreadable) => &mut self.unreadable,
            Signature::Unchecked(Unchecked::OverBudget) => &mut self.over_budget,
            Signature::Unchecked(Unchecked::Pending) => &mut self.queued,
        };
        *counter += 1;
    }
}
