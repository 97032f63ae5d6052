//! What the services of incidents are called: noted by the writer, which looks up whose server answered each alert.
//!
//! An incident knows its services by address, and an address says little: pods come and go, and two may serve on the same
//! loopback port. So each is called what the alerts of the same incident called it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use ulid::Ulid;

use crate::alert::incident::MAX_NAMES;
use crate::alert::{Activity, Incident};

/// Most incidents whose services are known, some 3 KiB each at most. Services of older ones are told by address.
const MOST: usize = 1024;

/// Names of services by incident.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: HashMap<Ulid, Vec<(SocketAddr, String)>>,
    /// Oldest first.
    order: VecDeque<Ulid>,
}

impl Names {
    /// An alert of an incident is about this server.
    pub(super) fn note(&mut self, incident: Ulid, server: SocketAddr, name: &str) {
        if !self.names.contains_key(&incident) {
            while self.order.len() >= MOST {
                let oldest = self.order.pop_front();
                oldest.and_then(|oldest| self.names.remove(&oldest));
            }
            self.order.push_back(incident);
        }
        let names = self.names.entry(incident).or_default();
        let is_known = names.iter().any(|(other, known)| *other == server && known == name);
        if !is_known && names.len() < MAX_NAMES {
            names.push((server, name.to_owned()));
        }
    }

    /// Fills in what the services of an incident are called.
    pub(super) fn fill(&mut self, incident: &mut Incident) {
        incident.workloads = self.names.get(&incident.id).cloned().unwrap_or_default();
        let Some(into) = incident.merged_into.filter(|_| incident.activity == Activity::Close) else {
            return;
        };
        for (server, name) in &incident.workloads {
            self.note(into, *server, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::staging::incident;

    #[test]
    fn an_incident_has_the_names_that_its_alerts_had() {
        let (mut named, mut incident) = (Names::default(), incident());
        let server = incident.services[0];
        for name in ["shop/a", "pay/b", "shop/a"] {
            named.note(incident.id, server, name);
        }
        named.note(Ulid::from_parts(1, 1), server, "other/c");
        named.fill(&mut incident);
        assert_eq!(incident.workloads, [(server, "shop/a".to_owned()), (server, "pay/b".to_owned())]);
    }

    #[test]
    fn names_go_on_in_the_incident_that_takes_another_in() {
        let (mut named, mut from) = (Names::default(), incident());
        let server = from.services[0];
        named.note(from.id, server, "shop/a");
        let into = Ulid::from_parts(7, 7);
        (from.activity, from.merged_into) = (Activity::Close, Some(into));
        named.fill(&mut from);
        let mut other = Incident { id: into, merged_into: None, ..from };
        named.fill(&mut other);
        assert_eq!(other.workloads, [(server, "shop/a".to_owned())]);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut named = Names::default();
        let server = incident().services[0];
        for number in 0..3 * MOST as u64 {
            named.note(Ulid::from_parts(number, 1), server, "a");
        }
        for number in 0..100 {
            named.note(Ulid::from_parts(1, 2), server, &number.to_string());
        }
        assert_eq!((named.names.len(), named.order.len()), (MOST, MOST));
        assert_eq!(named.names[&Ulid::from_parts(1, 2)].len(), MAX_NAMES);
    }
}
