//! Names that many tokens share, each kept once: algorithms, key ids, issuers, audiences.

use std::sync::Arc;

use hashbrown::HashSet;

use crate::token::jose::text::printable;

/// Most names kept. A node's services know tens of issuers with tens of keys; who makes up more names than this only
/// makes all be gathered anew, for 1024 names of at most 256 bytes.
const MAX_NAMES: usize = 1024;

/// The names in use.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<Arc<str>, foldhash::fast::RandomState>);

impl Names {
    /// The name as it may be shown, shared with everybody who has the same.
    pub(super) fn of(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let shown = printable(text);
        if let Some(known) = self.0.get(&*shown) {
            return Arc::clone(known);
        }
        if self.0.len() >= MAX_NAMES {
            self.0.clear();
        }
        let name: Arc<str> = shown.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_and_made_up_ones_are_forgotten() {
        let mut names = Names::default();
        let first = names.of("https://idp.example/");
        assert!(Arc::ptr_eq(&first, &names.of("https://idp.example/")));
        for number in 0..10_000 {
            names.of(&format!("kid-{number}"));
            assert!(names.0.len() <= MAX_NAMES);
        }
        assert_eq!(names.of("https://idp.example/"), first);
    }

    #[test]
    fn names_are_fit_to_be_shown() {
        let mut names = Names::default();
        let name = names.of("a\nb");
        assert_eq!(&*name, "a\\u{a}b");
        assert!(Arc::ptr_eq(&name, &names.of("a\nb")));
    }
}
