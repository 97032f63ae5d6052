//! The memory of the detect stage over a restart: the participants, the routes, the climate of logins, and what each rule
//! keeps.
//!
//! Parts are saved one at a time, so that saving a million tokens never holds up capture for long. Between two parts the
//! roster may give a place to somebody else; the lives of places tell, and what does not fit is void.

use crate::detect::roster::Roster;
use crate::detect::routes::Learned;
use crate::detect::{About, Detector, Lineage, Memory};

/// One part of what is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Whose it is: a rule's id, [`ROSTER`], [`ROUTES`], [`CLIMATE`] or [`LINEAGE`].
    pub name: &'static str,
    /// Version of its layout.
    pub version: u32,
    /// In a form that only its owner knows.
    pub bytes: Vec<u8>,
}

/// The part that every other refers to.
pub const ROSTER: &str = "roster";

/// The routes, which columns refer to as well.
pub const ROUTES: &str = "routes";

/// Who has logged in from where, and how logins went of late.
pub const CLIMATE: &str = "climate";

/// Where tokens come from.
pub const LINEAGE: &str = "lineage";

/// Raised when the layout of one of these changes.
const VERSION: u32 = 2;

/// Why nothing, or not everything, was remembered.
#[derive(Debug, thiserror::Error)]
#[error("the history of {name} was written by another version, or cannot be read")]
pub struct Forgotten {
    /// Whose.
    pub name: String,
}

impl Detector {
    /// How many parts there are.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.seats().len() + 4
    }

    /// Saves one part: none for a rule without history, and for one whose history cannot be written.
    pub fn save(&mut self, part: usize) -> Option<Remembered> {
        let saved = |name, version, bytes: Result<Vec<u8>, postcard::Error>| {
            let bytes = bytes.ok()?;
            Some(Remembered { name, version, bytes })
        };
        match part {
            0 => saved(ROSTER, VERSION, self.roster_mut().save()),
            1 => saved(ROUTES, VERSION, self.routes_mut().save()),
            2 => saved(CLIMATE, VERSION, self.climate_mut().save()),
            3 => saved(LINEAGE, VERSION, self.lineage_mut().save()),
            _ => {
                let rule = self.seats_mut().get_mut(part - 4)?.rule_mut();
                let about = rule.about();
                saved(about.id, layout(about), rule.memory()?.save())
            }
        }
    }

    /// Takes over what another detector remembers: one with other settings.
    pub fn inherit(&mut self, other: &mut Self) -> Vec<Forgotten> {
        let saved: Vec<Remembered> = (0..other.parts()).filter_map(|part| other.save(part)).collect();
        self.restore(|name| {
            let found = saved.iter().find(|part| part.name == name)?;
            Some((found.version, found.bytes.as_slice()))
        })
    }

    /// Takes over what was saved: `part` gives the bytes of a part of this name and version. Rules that were not there
    /// begin anew. Returns whose history could not be used; without participants and routes, nobody's can.
    pub fn restore<'a>(&mut self, mut part: impl FnMut(&str) -> Option<(u32, &'a [u8])>) -> Vec<Forgotten> {
        let all = |name: &str| vec![Forgotten { name: name.to_owned() }];
        let mut of =
            |name: &str, version: u32| part(name).filter(|(v, _)| *v == version).map(|(_, bytes)| bytes);
        let Some(roster) = of(ROSTER, VERSION).and_then(|bytes| postcard::from_bytes::<Roster>(bytes).ok())
        else {
            return all("all participants");
        };
        let Some(routes) = of(ROUTES, VERSION).and_then(|bytes| postcard::from_bytes::<Learned>(bytes).ok())
        else {
            return all("all routes");
        };
        self.roster_mut().resume(roster);
        self.routes_mut().resume(routes);
        let mut forgotten = Vec::new();
        if let Some((version, bytes)) = part(CLIMATE)
            && (version != VERSION || self.climate_mut().load(bytes).is_err())
        {
            forgotten.push(Forgotten { name: "all logins".to_owned() });
        }
        if let Some((version, bytes)) = part(LINEAGE) {
            match postcard::from_bytes::<Lineage>(bytes) {
                Ok(lineage) if version == VERSION => self.lineage_mut().resume(lineage),
                _ => forgotten.push(Forgotten { name: "where tokens come from".to_owned() }),
            }
        }
        for seat in self.seats_mut() {
            let rule = seat.rule_mut();
            let about = rule.about();
            let (Some(memory), Some((version, bytes))) = (rule.memory(), part(about.id)) else { continue };
            if version != layout(about) || memory.load(bytes).is_err() {
                forgotten.push(Forgotten { name: about.id.to_owned() });
            }
        }
        forgotten
    }
}

/// A rule's version as a number: `1.2.3` is 1,002,003.
fn layout(about: &About) -> u32 {
    about
        .version
        .split('.')
        .filter_map(|n| n.parse::<u32>().ok())
        .fold(0, |all, n| all.wrapping_mul(1000).wrapping_add(n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::DetectSettings;
    use crate::detect::staging::{Stage, uses};

    /// So many failed logins; the rules that spoke.
    fn failed(detector: &mut Detector, times: u64) -> Vec<&'static str> {
        let mut found = Vec::new();
        for _ in 0..times {
            let stage = Stage::to("POST", "/login").status(401);
            detector.judge(&stage.exchange, &uses([]), stage.exchange.at, &mut found);
        }
        found.iter().map(|f| f.rule.id).collect()
    }

    fn parts(detector: &mut Detector) -> Vec<Remembered> {
        (0..detector.parts()).filter_map(|part| detector.save(part)).collect()
    }

    #[test]
    fn a_detector_goes_on_where_another_stopped() {
        let mut first = Detector::new(DetectSettings::default());
        assert!(failed(&mut first, 6).is_empty());
        let mut second = Detector::new(DetectSettings::default());
        assert!(second.inherit(&mut first).is_empty());
        assert_eq!(second.routes().len(), first.routes().len());
        assert!(failed(&mut second, 4).contains(&"brute-force"));
    }

    #[test]
    fn without_participants_nothing_is_taken_over() {
        let mut first = Detector::new(DetectSettings::default());
        failed(&mut first, 6);
        let saved = parts(&mut first);
        let mut second = Detector::new(DetectSettings::default());
        let lost = second.restore(|name| {
            let part = saved.iter().find(|part| part.name == name && name != ROSTER)?;
            Some((part.version, part.bytes.as_slice()))
        });
        assert_eq!(lost.len(), 1);
        assert!(failed(&mut second, 4).is_empty());
    }

    #[test]
    fn a_part_of_another_version_is_forgotten_alone() {
        let mut first = Detector::new(DetectSettings::default());
        failed(&mut first, 6);
        let saved = parts(&mut first);
        let mut second = Detector::new(DetectSettings::default());
        let lost = second.restore(|name| {
            let part = saved.iter().find(|part| part.name == name)?;
            Some((part.version + u32::from(name == "token-rate"), part.bytes.as_slice()))
        });
        assert_eq!(lost.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["token-rate"]);
    }

    #[test]
    fn damaged_parts_are_refused_without_panic() {
        let mut first = Detector::new(DetectSettings::default());
        failed(&mut first, 6);
        for cut in 0..40 {
            let mut second = Detector::new(DetectSettings::default());
            let saved = parts(&mut first);
            second.restore(|name| {
                let part = saved.iter().find(|part| part.name == name)?;
                let cut = if name == ROSTER || name == ROUTES { 0 } else { cut };
                Some((part.version, part.bytes.get(..part.bytes.len().saturating_sub(cut)).unwrap()))
            });
            failed(&mut second, 4);
        }
    }
}
