//! Detections: what an exchange, its tokens and their history say about an attack.

pub mod finding;
pub mod rule;

pub use finding::{Finding, Principal, Scene, Severity};
pub use rule::{About, Case, Needs, Report, Rule, Threshold, Thresholds};
