//! What the sensor tells about itself: logs, metrics, progress, and a last line. Never anything secret.

pub mod catalogue;
pub mod logs;
pub mod metrics;
pub mod process;
pub mod progress;
pub mod server;
pub mod stopwatch;
pub mod text;
pub mod totals;

pub use metrics::{Histogram, Kind, Metric, Sample};
pub use progress::Progress;
pub use text::printable;
pub use totals::Totals;
