//! Names that many tokens share, each kept once: algorithms, key ids, issuers, audiences, and sets of roles; and what
//! such names make together.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::HashSet;

use crate::token::jose::text::printable;
use crate::token::parts::Profile;

/// Most names kept. A node's services know tens of issuers with tens of keys; who makes up more names than this only
/// makes all be gathered anew, for 1024 names of at most 256 bytes.
const MAX_NAMES: usize = 1024;

/// Most sets of roles kept: 2 MiB if each has the most and the longest roles that a token may have.
const MAX_SETS: usize = 256;

/// Most profiles kept: an issuer has a few keys, audiences and sets of roles, and not each with each. Names that a profile
/// holds alone are 4 KiB at most, but then it is of a token that holds as much itself.
const MAX_PROFILES: usize = 1024;

/// Places for subjects: a power of two. Whoever comes back within some thousand other names with another token shares
/// the text; 1 MiB of texts that nobody else holds at most.
const SUBJECTS: usize = 1 << 12;

/// The names in use.
#[derive(Debug, Default)]
pub(super) struct Names {
    texts: Set<Arc<str>>,
    roles: Set<Arc<[Box<str>]>>,
    profiles: Set<Arc<Profile>>,
    /// The newest in each place; empty until there is one.
    subjects: Vec<Option<Arc<str>>>,
}

type Set<T> = HashSet<T, foldhash::fast::RandomState>;

impl Names {
    /// The name as it may be shown, shared with everybody who has the same.
    pub(super) fn of(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let shown = printable(text);
        if let Some(known) = self.texts.get(&*shown) {
            return Arc::clone(known);
        }
        if self.texts.len() >= MAX_NAMES {
            self.texts.clear();
        }
        let name: Arc<str> = shown.into();
        self.texts.insert(Arc::clone(&name));
        name
    }

    /// A set of roles, shared with everybody who has the same.
    pub(super) fn roles(&mut self, roles: Box<[Box<str>]>) -> Arc<[Box<str>]> {
        if let Some(known) = self.roles.get(&*roles) {
            return Arc::clone(known);
        }
        if self.roles.len() >= MAX_SETS {
            self.roles.clear();
        }
        let roles: Arc<[Box<str>]> = roles.into();
        self.roles.insert(Arc::clone(&roles));
        roles
    }

    /// A profile, shared with everybody who has the same.
    pub(super) fn profile(&mut self, profile: Profile) -> Arc<Profile> {
        if let Some(known) = self.profiles.get(&profile) {
            return Arc::clone(known);
        }
        if self.profiles.len() >= MAX_PROFILES {
            self.profiles.clear();
        }
        let profile = Arc::new(profile);
        self.profiles.insert(Arc::clone(&profile));
        profile
    }

    /// A subject's name as it may be shown, shared with the token that had it last, if that is not long ago.
    pub(super) fn subject(&mut self, text: &str) -> Arc<str> {
        if self.subjects.is_empty() {
            self.subjects.resize(SUBJECTS, None);
        }
        let shown = printable(text);
        let hash = self.texts.hasher().hash_one(&*shown);
        let at = usize::try_from(hash % SUBJECTS as u64).unwrap_or_default();
        match self.subjects.get_mut(at) {
            Some(Some(known)) if **known == *shown => Arc::clone(known),
            place => {
                let name: Arc<str> = shown.into();
                if let Some(place) = place {
                    *place = Some(Arc::clone(&name));
                }
                name
            }
        }
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
            assert!(names.texts.len() <= MAX_NAMES);
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
            assert!(names.roles.len() <= MAX_SETS);
        }
        assert_eq!(names.roles(set(1)), first);
    }

    #[test]
    fn tokens_of_one_kind_share_a_profile_and_made_up_ones_are_forgotten() {
        let mut names = Names::default();
        let of = |kid: u32| Profile { kid: Some(format!("k{kid}").into()), ..Profile::default() };
        let first = names.profile(of(1));
        assert!(Arc::ptr_eq(&first, &names.profile(of(1))) && !Arc::ptr_eq(&first, &names.profile(of(2))));
        for n in 0..5000 {
            names.profile(of(n));
            assert!(names.profiles.len() <= MAX_PROFILES);
        }
        assert_eq!(names.profile(of(1)), first);
    }

    #[test]
    fn a_subject_that_comes_back_is_shared_and_never_mistaken() {
        let mut names = Names::default();
        let first = names.subject("alice");
        assert!(Arc::ptr_eq(&first, &names.subject("alice")));
        for n in 0..20_000 {
            assert_eq!(*names.subject(&format!("user-{n}")), format!("user-{n}"));
        }
        assert_eq!((&*names.subject("alice"), names.subjects.len()), ("alice", SUBJECTS));
        assert_eq!(&*names.subject("a\nb"), "a\\u{a}b");
    }

    #[test]
    fn names_are_fit_to_be_shown() {
        let mut names = Names::default();
        let name = names.of("a\nb");
        assert_eq!(&*name, "a\\u{a}b");
        assert!(Arc::ptr_eq(&name, &names.of("a\nb")));
    }
}
