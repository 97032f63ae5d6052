//! Rules that users write: a condition over an exchange, a correlation over time, a sentence.
//!
//! What is here is checked already and is asked about exchanges; files are read and checked by
//! [`config::user`](crate::config). Fields, types, conditions, correlation, sentences, examples: one file each.

pub mod correlate;
pub mod engine;
pub mod expr;
pub mod facts;
pub mod field;
pub mod guard;
pub mod message;
pub mod model;
pub mod played;
pub mod set;
pub mod value;

pub use engine::Engine;
pub use model::{UserRule, UserRules};
