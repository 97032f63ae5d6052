//! What is kept on disk between runs, below `state_dir`: marks, and the index of recent alerts.

pub mod files;
pub mod index;
pub mod marks;

pub use index::Index;
