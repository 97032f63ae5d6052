//! The catalogue: one file a rule. To add one, write `rules/<id>.rs` and add its line to the list below; its page in
//! docs/rules.md, its metric label and its configuration keys follow from its card.
//!
//! `cargo fmt` does not see files that a macro names: format them with `rustfmt --edition 2024 <file>`.

use std::sync::Arc;
use std::time::Duration;

use crate::detect::{About, DetectSettings, Rule};

/// The longest time after which a rule that aggregates says what it holds.
pub const LONGEST_WAIT: Duration = Duration::from_mins(2);

/// Names each rule once: its module, its card in the catalogue, its seat in the detector.
macro_rules! rules {
    ($($name:ident),+ $(,)?) => {
        $(pub mod $name;)+

        /// Every rule's card.
        #[must_use]
        pub fn catalogue() -> &'static [&'static About] {
            static CATALOGUE: &[&About] = &[$(&$name::ABOUT),+];
            CATALOGUE
        }

        /// Every rule, ready to be asked, in the order of the catalogue.
        pub(crate) fn build(settings: &Arc<DetectSettings>) -> Vec<Box<dyn Rule>> {
            vec![$($name::rule(settings)),+]
        }
    };
}

rules! {
    // A. The token itself.
    alg_none,
    signature_invalid,
    alg_confusion,
    expired_token,
    not_yet_valid,
    issuer_unknown,
    audience_mismatch,
    malformed_token,
    embedded_key,
    key_url,
    kid_injection,
    weak_secret,
    psychic_signature,
    claims_tampered,
    alg_not_allowed,
    unknown_critical,
    costly_token,
    type_confusion,
    issued_in_future,
    missing_expiry,
    missing_id,
    lifetime_unusual,
    token_in_url,
    token_in_clear,
    proof_missing,
    guessable_token,
    revoked_token,
    refresh_reuse,
    forged_token_accepted,
    // B. Sessions and theft.
    token_many_sources,
    device_change,
    impossible_travel,
    new_country,
    disallowed_region,
    workload_token_abroad,
    subject_switch,
    privilege_change,
    known_bad_address,
    // C. Logins and accounts.
    brute_force,
    off_hours,
    dormant_account,
    departed_account,
    listed_account,
    new_device_sensitive,
    password_spray,
    credential_stuffing,
    account_guessing,
    login_failure_rate,
    token_failure_rate,
    frequent_login,
    many_failing_accounts,
    // D. Authorisation and data.
    denied_rate,
    object_enumeration,
    foreign_object,
    function_escalation,
    bulk_access,
    data_exfiltration,
    endpoint_recon,
    injection,
    unusual_endpoint,
    unusual_sequence,
    // E. Volume, health and the unusual.
    token_rate,
    address_rate,
    traffic_spike,
    error_rate,
    slow_responses,
    signal_missing,
    request_smuggling,
    coverage_gap,
    entity_risk,
}

/// Rules whose finding about a token says all that another's says, and more: `(said less, said more)`.
pub(crate) const EXPLAINED_BY: &[(&str, &str)] = &[
    ("signature-invalid", "claims-tampered"),
    ("alg-not-allowed", "claims-tampered"),
    ("device-change", "token-many-sources"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Seconds of silence as the design has them: brute force 15 minutes, object enumeration 30, rates 5, suspicious
    /// addresses 60, others 10.
    fn cooling_s(id: &str) -> u32 {
        match id {
            "brute-force" => 900,
            "object-enumeration" => 1800,
            _ if id.ends_with("-rate") => 300,
            _ if id.ends_with("-address") => 3600,
            _ => 600,
        }
    }

    #[test]
    fn every_card_cools_as_the_design_has_it() {
        let wrong: Vec<_> = catalogue().iter().filter(|card| card.cooling_s != cooling_s(card.id)).collect();
        let told: Vec<_> = wrong.iter().map(|card| (card.id, card.cooling_s, cooling_s(card.id))).collect();
        assert!(told.is_empty(), "(rule, is, should be): {told:?}");
    }

    #[test]
    fn every_card_is_complete_and_unique() {
        let mut ids = BTreeSet::new();
        for about in catalogue() {
            assert!(ids.insert(about.id), "{} twice", about.id);
            assert!(about.id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", about.id);
            assert!(about.doc.len() > 200 && !about.title.is_empty(), "{} says too little", about.id);
            assert!(about.accepted.is_none_or(|a| a > about.severity), "{}", about.id);
            assert!(about.attack.iter().all(|t| t.starts_with('T')), "{}", about.id);
            for t in about.thresholds {
                assert!((t.min..=t.max).contains(&t.default), "{}.{}", about.id, t.key);
                assert!(t.min >= 0.0 && t.max <= f64::from(u32::MAX), "{}.{}", about.id, t.key);
            }
        }
    }
}
