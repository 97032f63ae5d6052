//! What is kept on disk between runs, below `state_dir`: marks, the index of recent alerts, and what stages
//! remember.

pub mod files;
pub mod index;
pub mod marks;
pub mod snapshot;

pub use index::Index;
