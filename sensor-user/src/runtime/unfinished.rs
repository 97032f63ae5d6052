//! Alerts that were told before the name of their pod was known: once it is, they are told again, as news of the same alert.
//!
//! Nobody waits for this: the alert went out at once with the pod's UID and the container's id.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::alert::{Activity, Alert, Event, Identity, Place};
use crate::detect::Scene;

/// Most alerts that wait, some 3 KiB each. Later ones are completed by their own news only.
const MOST: usize = 256;
/// How long one waits: a watch that was away for longer is not completed by force.
const PATIENCE: Duration = Duration::from_mins(10);

/// Alerts whose pod had no name yet, oldest first, each by its newest news.
#[derive(Debug, Default)]
pub(super) struct Unfinished(VecDeque<(Instant, Box<Alert>)>);

impl Unfinished {
    /// An alert is told, and it is known so far who answered.
    pub(super) fn note(&mut self, alert: &Alert, identity: Identity, now: Instant) {
        // Newer news take the place of older, or have told all there is.
        self.0.retain(|(_, other)| other.id != alert.id);
        if identity == Identity::Pending && self.0.len() < MOST {
            self.0.push_back((now, Box::new(alert.clone())));
        }
    }

    /// Those of which more is known now, as news that nothing has happened since.
    pub(super) fn take_known(&mut self, now: Instant, place: impl Fn(&Scene) -> Place) -> Vec<Event> {
        let mut known = Vec::new();
        self.0.retain_mut(|(since, alert)| {
            let Some(scene) = alert.finding.scene.as_deref() else { return false };
            let place = place(scene);
            match place.identity {
                Identity::Pending => return now.duration_since(*since) < PATIENCE,
                Identity::Known | Identity::Gone if place.pod.is_some() => {
                    let (place, activity) = (Some(place), Activity::Update);
                    known.push(Event::Alert(Box::new(Alert { place, activity, ..(**alert).clone() })));
                }
                // That nobody will ever tell its name is no news.
                _ => {}
            }
            false
        });
        known
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::alert::place::Pod;
    use crate::alert::staging::alert;

    fn of(identity: Identity) -> Place {
        let pod = matches!(identity, Identity::Known | Identity::Gone).then(|| Arc::new(Pod::default()));
        Place { identity, pod, ..Place::default() }
    }

    #[test]
    fn an_alert_is_completed_once() {
        let (mut unfinished, now) = (Unfinished::default(), Instant::now());
        let alert = alert();
        unfinished.note(&alert, Identity::Pending, now);
        assert!(unfinished.take_known(now, |_| of(Identity::Pending)).is_empty());
        let known = unfinished.take_known(now, |_| of(Identity::Known));
        let [Event::Alert(told)] = known.as_slice() else { panic!("{known:?}") };
        assert_eq!((told.id, told.activity, told.count), (alert.id, Activity::Update, alert.count));
        assert_eq!(told.place.as_ref().map(|place| place.identity), Some(Identity::Known));
        assert!(unfinished.take_known(now, |_| of(Identity::Known)).is_empty());
    }

    #[test]
    fn an_alert_whose_own_news_told_all_is_not_told_again() {
        let (mut unfinished, now) = (Unfinished::default(), Instant::now());
        unfinished.note(&alert(), Identity::Pending, now);
        unfinished.note(&alert(), Identity::Known, now);
        assert!(unfinished.take_known(now, |_| of(Identity::Known)).is_empty());
    }

    #[test]
    fn nobody_waits_for_ever_and_not_too_many_at_once() {
        let (mut unfinished, now) = (Unfinished::default(), Instant::now());
        for number in 0..2 * MOST {
            let id = ulid::Ulid::from_parts(number as u64, 1);
            unfinished.note(&Alert { id, ..alert() }, Identity::Pending, now);
        }
        assert_eq!(unfinished.0.len(), MOST);
        assert!(unfinished.take_known(now, |_| of(Identity::Unknown)).is_empty());
        assert!(unfinished.0.is_empty(), "nobody will tell");
        unfinished.note(&alert(), Identity::Pending, now);
        assert!(unfinished.take_known(now + PATIENCE, |_| of(Identity::Pending)).is_empty());
        assert!(unfinished.0.is_empty());
    }
}
