//! The bill of materials: `CycloneDX` 1.5 (<https://cyclonedx.org/docs/1.5/json/>), every crate and library that the
//! program is made of, with versions, licences, digests, and who uses whom.
//!
//! Without a serial number and with the commit's time, so that the same source gives the same bytes.

use serde_json::{Value, json};

use super::agent::Agent;
use super::crates::{Crate, purl};
use super::libraries::Library;
use super::{NAME, SUMMARY, VERSION};

/// The crate that stands for the program as a whole.
const PROGRAM: &str = "sensor-user";

/// Makes the document; libraries are those that lie beside the program.
pub(super) fn document(agent: &Agent, crates: &[Crate], libraries: &[Library]) -> String {
    let packages = packages(libraries, agent.arch.name());
    let others = || crates.iter().filter(|one| one.name != PROGRAM);
    let components: Vec<Value> =
        others().map(component).chain(packages.iter().map(|(_, value)| value.clone())).collect();
    let dependencies: Vec<Value> = crates
        .iter()
        .map(|one| {
            let mut on: Vec<String> = one.uses.iter().map(|(name, version)| purl(name, version)).collect();
            if one.name == PROGRAM {
                on.extend(packages.iter().map(|(reference, _)| reference.clone()));
            }
            let reference = if one.name == PROGRAM { program() } else { one.purl() };
            json!({"ref": reference, "dependsOn": on})
        })
        .collect();
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": agent.epoch.rfc3339(),
            "component": {
                "type": "application", "bom-ref": program(), "name": NAME, "version": VERSION,
                "description": SUMMARY, "purl": program(),
                "licenses": [{"expression": "MIT OR Apache-2.0"}],
            },
        },
        "components": components,
        "dependencies": dependencies,
    });
    format!("{document:#}\n")
}

fn program() -> String {
    format!("pkg:generic/{NAME}@{VERSION}")
}

fn component(one: &Crate) -> Value {
    let mut value = json!({
        "type": "library", "bom-ref": one.purl(), "name": one.name, "version": one.version, "purl": one.purl(),
        "description": one.description, "licenses": [{"expression": one.licence}],
    });
    if let (Some(checksum), Some(members)) = (&one.checksum, value.as_object_mut()) {
        members.insert("hashes".to_owned(), json!([{"alg": "SHA-256", "content": checksum}]));
    }
    value
}

/// The Debian packages of the libraries, each once: its package URL, and its component.
fn packages(libraries: &[Library], arch: &str) -> Vec<(String, Value)> {
    let mut known: Vec<&(String, String)> =
        libraries.iter().filter_map(|library| library.package.as_ref()).collect();
    known.sort();
    known.dedup();
    let describe = |(name, version): &(String, String)| {
        let name = name.split(':').next().unwrap_or(name);
        let escaped = version.replace('%', "%25").replace('+', "%2B").replace(':', "%3A").replace('~', "%7E");
        let purl = format!("pkg:deb/debian/{name}@{escaped}?arch={arch}");
        let value =
            json!({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl});
        (purl, value)
    };
    known.into_iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};
    use std::path::PathBuf;

    use super::*;
    use crate::dist::{Arch, crates, time::Epoch};

    fn agent() -> Agent {
        Agent { arch: Arch::here(), path: PathBuf::new(), epoch: Epoch(0), commit: None }
    }

    #[test]
    fn every_reference_leads_to_a_component() {
        let crates = crates::compiled_in(Arch::here()).unwrap();
        let text = document(&agent(), &crates, &[]);
        assert_eq!(text, document(&agent(), &crates, &[]));
        let value: Value = serde_json::from_str(&text).unwrap();
        let references = |pointer: &str, member: &str| -> Vec<String> {
            let list = value.pointer(pointer).and_then(Value::as_array).unwrap();
            list.iter().map(|one| one[member].as_str().unwrap().to_owned()).collect()
        };
        let mut known: Vec<String> = references("/components", "bom-ref");
        assert_eq!(known.iter().collect::<HashSet<_>>().len(), known.len(), "a component twice");
        known.push(program());
        let used: BTreeSet<String> = value["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|one| one["dependsOn"].as_array().unwrap())
            .map(|reference| reference.as_str().unwrap().to_owned())
            .collect();
        assert!(used.iter().all(|reference| known.contains(reference)), "{used:?}");
        assert!(known.contains(&"pkg:generic/tokenscope@0.1.0".to_owned()) && used.len() > 100);
    }
}
