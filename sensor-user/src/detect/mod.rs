//! Detections: what an exchange, its tokens and their history say about an attack.

pub mod accounts;
pub mod atlas;
pub mod cause;
pub mod challenge;
pub mod climate;
pub mod crowd;
pub mod detector;
pub mod directory;
pub mod docs;
pub mod family;
pub mod finding;
pub mod habit;
pub mod holder;
pub mod knowledge;
pub mod lasting_share;
pub mod learning;
pub mod lineage;
pub mod listed;
pub mod login;
pub mod memory;
pub mod mostly;
pub mod object;
pub mod pace;
pub mod pairs;
pub mod payload;
pub mod recent;
pub mod remarks;
pub mod roster;
pub mod routes;
pub mod rule;
pub mod rules;
pub mod scene;
pub mod session;
pub mod settings;
pub mod sketch;
pub mod spelling;
pub mod statement;
pub mod table;
pub mod templates;
pub mod text;
pub mod told;
pub mod unusual_share;
pub mod user;
pub mod window;

mod plan;

#[cfg(test)]
mod benign;
#[cfg(test)]
pub(crate) mod staging;

pub use detector::Detector;
pub use finding::{Finding, Principal, Scene, Severity};
pub use knowledge::{Knowledge, Networks, Place};
pub use lineage::{Birth, Issue, Lineage};
pub use roster::{Column, Known, Marks, Slot, Who, is_in_order};
pub use rule::{
    About, Case, Guard, Memory, Needs, Report, Route, RouteKind, Rule, Threshold, Thresholds, When,
};
pub use settings::{DetectSettings, RouteMatch, RuleSettings};
