//! Keys of a sink of type `s3`.

use crate::config::section::Section;
use crate::config::tokens::Resolver;
use crate::sink::s3::Settings;

/// Reads what is particular to it.
pub(super) fn read(_s: &mut Section<'_, '_>, _resolver: Resolver<'_>) -> Option<Settings> {
    Some(Settings {})
}
