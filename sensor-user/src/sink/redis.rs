//! A Redis stream.

use crate::sink::{Node, Sink, Unusable};

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {}

/// Opens it.
///
/// # Errors
/// When it can never work as configured.
pub fn open(_settings: &Settings, _node: &Node) -> Result<Box<dyn Sink>, Unusable> {
    Err(Unusable("this sink is not in this version".into()))
}
