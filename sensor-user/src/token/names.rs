//! Names that many tokens share, each kept once: algorithms, key ids, issuers, audiences, and sets of roles.

use std::sync::Arc;

use hashbrown::HashSet;

use crate::token::jose::text::printable;

/// Most names kept. A node's services know tens of issuers with tens of keys; who makes up more names than this only
/// makes all be gathered anew, for 1024 names of at most 256 bytes.
const MAX_NAMES: usize = 1024;

/// Most sets of roles kept: 2 MiB if each has the most and the longest roles that a token may have.
const MAX_SETS: usize = 256;

/// The names in use.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<Arc<str>, foldhash::fast::RandomState>, Roles);

type Roles = HashSet<Arc<[Box<str>]>, foldhash::fast::RandomState>;

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

    /// A set of roles, shared with everybody who has the same.
    pub(super) fn roles(&mut self, roles: Box<[Box<str>]>) -> Arc<[Box<str>]> {
        if let Some(known) = self.1.get(&*roles) {
            return Arc::clone(known);
        }
        if self.1.len() >= MAX_SETS {
            self.1.clear();
        }
        let roles: Arc<[Box<str>]> = roles.into();
        self.1.insert(Arc::clone(&roles));
        roles
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
    fn sets_of_roles_are_shared_and_bounded() {
        let mut names = Names::default();
        let set = |n: u32| Box::from([format!("ROLE-{n}").into_boxed_str()]);
        let first = names.roles(set(1));
        assert!(Arc::ptr_eq(&first, &names.roles(set(1))) && !Arc::ptr_eq(&first, &names.roles(set(2))));
        for n in 0..5000 {
            names.roles(set(n));
            assert!(names.1.len() <= MAX_SETS);
        }
        assert_eq!(names.roles(set(1)), first);
    }

    #[test]
    fn names_are_fit_to_be_shown() {
        let mut names = Names::default();
        let name = names.of("a\nb");
        assert_eq!(&*name, "a\\u{a}b");
        assert!(Arc::ptr_eq(&name, &names.of("a\nb")));
    }
}
