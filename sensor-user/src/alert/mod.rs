//! Alerts: findings after dedup and cooling, with an identity; incidents that hold what belongs together; the risk of
//! who is involved; and what people have said of alerts before.

pub mod dedup;
pub mod desk;
pub mod entity;
pub mod event;
pub mod incident;
pub mod incidents;
pub mod key;
pub mod marks;
pub mod memory;
pub mod place;
pub mod priority;
pub mod risk;

#[cfg(test)]
pub(crate) mod staging;

pub use desk::{AlertSettings, Desk};
pub use event::{Activity, Alert, Event};
pub use incident::Incident;
pub use marks::Marks;
pub use place::{Identity, Place, Process};
pub use priority::Priority;
