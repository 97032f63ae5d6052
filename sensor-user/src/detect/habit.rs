//! Habits of tokens: whether a use is a plain repeat of one a moment ago, which tells most rules nothing.
//!
//! A busy client sends the same token from the same address to the same routes many times a second. What rules say of
//! the token, its holder and its place they have said at the first of these requests; only rules that count or look at
//! the request itself need the others. A habit lasts for [`LASTS_S`], so a rule that is asked of news only may take a
//! use to be that much older than it is.

use crate::detect::roster::Slot;

/// Seconds after which a use is news again, in the time of the data.
pub const LASTS_S: u32 = 4;

/// Routes of one habit: what a page or a poll asks for in turns.
const ROUTES: usize = 3;

/// How a token was used a moment ago. 40 bytes, of which none is lost to alignment beside the life of its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habit {
    /// Names client, service and everything else that counts: 64 bits in halves.
    manner: [u32; 2],
    since_s: u32,
    /// Who acts by the token, if it was known.
    pub actor: Slot,
    /// The lives of the routes in these places; a life of 0 is no route.
    lives: [u32; ROUTES],
    /// Places of routes beyond those that fit are no habit: 65,536 routes are six times what is known by default.
    places: [u16; ROUTES],
    newest: u8,
    /// Whether a verified signature named the actor.
    pub verified: bool,
}

const _: () = assert!(size_of::<(u32, Habit)>() == 44, "one for each live token");

#[allow(clippy::cast_possible_truncation, reason = "both halves are kept")]
const fn halves(manner: u64) -> [u32; 2] {
    [manner as u32, (manner >> 32) as u32]
}

impl Habit {
    /// Notes a use; whether it repeats one of this habit.
    #[inline]
    pub fn repeats(&mut self, manner: u64, route: Slot, at_s: u32) -> bool {
        let manner = halves(manner);
        let lasts = self.manner == manner && at_s >= self.since_s && at_s - self.since_s < LASTS_S;
        if !lasts {
            (self.manner, self.since_s, self.lives) = (manner, at_s, [0; ROUTES]);
        }
        let (Ok(at), 1..) = (u16::try_from(route.at), route.life) else { return false };
        let mut known = self.lives.iter().zip(&self.places);
        if known.any(|(life, place)| (*life, *place) == (route.life, at)) {
            return true;
        }
        self.newest = (self.newest + 1) % 3;
        let newest = usize::from(self.newest);
        if let (Some(life), Some(place)) = (self.lives.get_mut(newest), self.places.get_mut(newest)) {
            (*life, *place) = (route.life, at);
        }
        false
    }

    /// The next use is news, however alike it is.
    pub const fn end(&mut self) {
        self.since_s = u32::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(at: u32) -> Slot {
        Slot { at, life: 1 }
    }

    #[test]
    fn a_use_is_news_once_in_four_seconds() {
        let mut habit = Habit::default();
        let news: Vec<_> = (0..10).filter(|second| !habit.repeats(7, route(1), 1000 + second)).collect();
        assert_eq!(news, [0, 4, 8]);
    }

    #[test]
    fn another_manner_or_route_is_news_and_so_is_the_past() {
        let mut habit = Habit::default();
        let uses = [(7, 1), (7, 1), (8, 1), (7, 1), (7, 2), (7, 1), (7, 2), (7, 3), (7, 4), (7, 4)];
        let repeats = uses.map(|(manner, at)| habit.repeats(manner, route(at), 1000));
        assert_eq!(repeats, [false, true, false, false, false, true, true, false, false, true]);
        assert!(!habit.repeats(7, route(4), 999));
        assert!(!habit.repeats(7, Slot::default(), 999), "no place is no habit");
        assert!(!habit.repeats(7, Slot::default(), 999));
    }

    #[test]
    fn an_end_is_an_end() {
        let mut habit = Habit::default();
        assert!(!habit.repeats(7, route(1), 1000) && habit.repeats(7, route(1), 1001));
        habit.end();
        assert!(!habit.repeats(7, route(1), 1002) && habit.repeats(7, route(1), 1002));
    }

    #[test]
    fn a_route_in_a_place_too_far_out_is_always_news() {
        let mut habit = Habit::default();
        let far = Slot { at: 65_536, life: 1 };
        assert!(!habit.repeats(7, far, 1000) && !habit.repeats(7, far, 1000));
        assert!(!habit.repeats(7, route(0), 1000), "nor is it taken for another");
    }
}
