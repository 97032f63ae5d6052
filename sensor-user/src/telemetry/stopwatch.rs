//! Where the time of segments and exchanges goes, stage by stage. The pipeline has no clock: whoever runs it brings one.

use std::fmt;

/// What a segment passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reassembly, with the HTTP in it.
    Http,
    /// Tokens found and looked up.
    Token,
    /// Rules asked.
    Detect,
    /// Findings made alerts.
    Alert,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Http, Self::Token, Self::Detect, Self::Alert];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Token => "token",
            Self::Detect => "detect",
            Self::Alert => "alert",
        }
    }
}

/// Is told when a segment comes, when exchanges come to be judged, and when one of these has passed a stage.
pub trait Stopwatch: fmt::Debug {
    /// A segment has come, or exchanges are about to be judged.
    fn start(&mut self);

    /// A segment or an exchange has passed this stage since the last call.
    fn lap(&mut self, stage: Stage);
}
