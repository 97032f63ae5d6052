//! The documentation's configurations are ones.

use std::path::Path;

use sensor_user::config::{Environment, Secrets, parse};
use sensor_user::sink::http::preset::PRESETS;

const DOCS: &str = include_str!("../../../docs/sinks.md");

#[test]
fn every_configuration_in_the_documentation_can_be_read() {
    let blocks: Vec<&str> =
        DOCS.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 6, "{}", blocks.len());
    for block in blocks {
        let read = parse("docs", block, Path::new("/"), &Environment::default(), &[], Secrets::Optional);
        let loaded =
            read.unwrap_or_else(|report| panic!("{block}: {:?}", report.lines().collect::<Vec<_>>()));
        assert!(!loaded.config.sinks.is_empty(), "{block}");
    }
}

#[test]
fn every_preset_and_what_it_can_be_told_is_documented() {
    for preset in &PRESETS {
        let row = DOCS.lines().find(|line| line.starts_with(&format!("| `{}` |", preset.name)));
        let row = row.unwrap_or_else(|| panic!("{} has no row", preset.name));
        for variable in preset.variables {
            let name = format!("`{}`", variable.name);
            assert!(row.contains(&name), "{}: {name}", preset.name);
            assert_eq!(
                row.contains(&format!("**{name}**")),
                variable.default.is_none(),
                "{}: {name}",
                preset.name
            );
        }
    }
}
