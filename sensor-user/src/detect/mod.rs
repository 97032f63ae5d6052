//! Detections: what an exchange, its tokens and their history say about an attack.

pub mod cause;
pub mod detector;
pub mod docs;
pub mod family;
pub mod finding;
pub mod holder;
pub mod knowledge;
pub mod roster;
pub mod routes;
pub mod rule;
pub mod rules;
pub mod scene;
pub mod settings;
pub mod statement;
pub mod table;
pub mod text;
pub mod user;
pub mod window;

#[cfg(test)]
pub(crate) mod staging;

pub use detector::Detector;
pub use finding::{Finding, Principal, Scene, Severity};
pub use knowledge::Knowledge;
pub use roster::{Column, Known, Slot, Who};
pub use rule::{About, Case, Guard, Memory, Needs, Report, Route, RouteKind, Rule, Threshold, Thresholds};
pub use settings::{DetectSettings, RouteMatch, RuleSettings};
