//! One account under many spellings: the form in which lists and their readers compare names.
//!
//! Directories and login forms take `Alice`, `ALICE`, `alice@corp.example`, `CORP\alice` and full-width letters for one
//! account; a list holds one of them. What is compared is the name without surrounding blanks and invisible
//! characters, in the compatibility form of Unicode (NFKC, Unicode Standard Annex 15), in lower case, and without the
//! domain if it is one of `lists.account_domains`.
//!
//! Not folded: letters of other scripts that look alike (they name another account, which somebody has made on
//! purpose), `alice+shop@...` (another mailbox to some, the same to others), and domains that are not configured:
//! another company's `alice` is another person.

use std::borrow::Cow;
use std::collections::BTreeSet;

use icu_normalizer::ComposingNormalizerBorrowed;

use crate::detect::roster::stable_hash;

/// The spellings that name one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spelling {
    /// Domains that may be left out, folded.
    domains: BTreeSet<Box<str>>,
}

impl Spelling {
    /// Accounts of these domains may be named without them.
    #[must_use]
    pub fn new<'a>(domains: impl IntoIterator<Item = &'a str>) -> Self {
        let bare = |domain: &str| folded(domain.trim_matches(['@', '\\', '.'])).into_owned().into_boxed_str();
        Self { domains: domains.into_iter().map(bare).filter(|domain| !domain.is_empty()).collect() }
    }

    /// The name as lists hold it. Allocates only where the name is not in that form already.
    #[must_use]
    pub fn of<'n>(&self, name: &'n str) -> Cow<'n, str> {
        match folded(name) {
            Cow::Borrowed(name) => Cow::Borrowed(self.without_domain(name)),
            Cow::Owned(name) => Cow::Owned(self.without_domain(&name).to_owned()),
        }
    }

    fn without_domain<'n>(&self, name: &'n str) -> &'n str {
        if self.domains.is_empty() {
            return name;
        }
        let parts = [name.rsplit_once('@'), name.split_once('\\').map(|(domain, user)| (user, domain))];
        let own = parts.into_iter().flatten().find(|(user, domain)| {
            !user.is_empty() && self.domains.contains(domain.strip_suffix('.').unwrap_or(domain))
        });
        own.map_or(name, |(user, _)| user)
    }
}

/// A hash that all spellings of an account share, whatever its domain; the same in every run.
#[must_use]
pub fn account(name: &str) -> u64 {
    stable_hash(&*folded(name))
}

/// The name trimmed, composed, in lower case, without what cannot be seen.
fn folded(name: &str) -> Cow<'_, str> {
    let name = name.trim();
    if name.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    if name.is_ascii() {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    let composed = ComposingNormalizerBorrowed::new_nfkc();
    let seen: String = composed.normalize(name).chars().filter(|c| !is_invisible(*c)).collect();
    // Lower case can undo the composition (U+0130 becomes two characters).
    let lower = composed.normalize(&seen.to_lowercase()).into_owned();
    Cow::Owned(lower.trim().to_owned())
}

/// What Unicode calls default-ignorable, as far as it occurs in text; and what stands for a control character that was
/// not kept.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fffd}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Every account that there is, as the directory feed says: 8 bytes each.
///
/// Names are kept by hash. One in 2^44 unknown names is taken for known among a million, which is no matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory(Box<[u64]>);

impl Directory {
    /// A directory of these names.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>, spelling: &Spelling) -> Self {
        let mut all: Vec<u64> = names.into_iter().map(|name| stable_hash(&*spelling.of(name))).collect();
        all.sort_unstable();
        all.dedup();
        Self(all.into_boxed_slice())
    }

    /// Whether it knows the account.
    #[must_use]
    pub fn knows(&self, name: &str, spelling: &Spelling) -> bool {
        self.0.binary_search(&stable_hash(&*spelling.of(name))).is_ok()
    }

    /// Accounts.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_account_are_one() {
        let spelling = Spelling::new(["corp.example", "@CORP\\"]);
        for name in [
            "alice",
            " Alice\t",
            "ALICE",
            "alice@corp.example",
            "Alice@Corp.Example.",
            "CORP\\alice",
            "corp.example\\Alice",
            "\u{ff21}lice",
            "\u{ff41}\u{ff4c}\u{ff49}\u{ff43}\u{ff45}\u{ff20}corp.example",
            "ali\u{200b}ce",
            "al\u{ad}ice\u{feff}",
            "ali\u{fffd}ce",
            "\u{1d41a}\u{1d425}\u{1d422}\u{1d41c}\u{1d41e}",
        ] {
            assert_eq!(spelling.of(name), "alice", "{name:?}");
        }
        assert_eq!(spelling.of("Zo\u{e9}"), spelling.of("zoe\u{301}"));
        assert_eq!(spelling.of("\u{130}rem"), spelling.of("i\u{307}rem"));
        assert_eq!(spelling.of("\u{fb01}nn"), "finn");
    }

    #[test]
    fn a_hash_is_of_the_account_and_not_of_its_spelling() {
        let spelled =
            [" Alice@Example.COM ", "alice@example.com", "ａlice@example.com", "al\u{200b}ice@example.com"];
        assert_eq!(spelled.map(account), [account("alice@example.com"); 4]);
        assert_ne!(account("alice"), account("alice@example.com"));
    }

    #[test]
    fn other_accounts_are_others() {
        let spelling = Spelling::new(["corp.example"]);
        for name in [
            "alice@other.example",
            "alice@corp.example.evil.example",
            "alice+x@corp.example",
            "\u{430}lice",
            "alice2",
            "al ice",
            "@corp.example",
            "corp.example\\",
            "",
        ] {
            assert_ne!(spelling.of(name), "alice", "{name:?}");
        }
        assert_eq!(Spelling::default().of("alice@corp.example"), "alice@corp.example");
        assert_eq!(spelling.of("@corp.example"), "@corp.example", "a name is left");
    }

    #[test]
    fn a_directory_knows_its_accounts_by_any_spelling() {
        let spelling = Spelling::new(["corp.example"]);
        let directory = Directory::new(["Alice", "bob@corp.example", "BOB"], &spelling);
        assert_eq!(directory.len(), 2);
        for name in ["alice@CORP.example", "bob", "Bob"] {
            assert!(directory.knows(name, &spelling), "{name}");
        }
        assert!(!directory.knows("mallory", &spelling) && !directory.knows("", &spelling));
    }

    proptest! {
        #[test]
        fn any_name_is_survived_and_folded_once_and_for_all(name in any::<String>()) {
            let spelling = Spelling::new(["x"]);
            let once = spelling.of(&name).into_owned();
            let upper = name.to_ascii_uppercase();
            prop_assert_eq!(folded(&folded(&name)).into_owned(), folded(&name).into_owned());
            prop_assert_eq!(spelling.of(&upper).into_owned(), once);
        }
    }
}
