//! A progress bar on a terminal's standard error, or nothing.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Steps of the bar: finer than any terminal is wide.
const STEPS: u32 = 10_000;

/// How far a replay has come.
#[derive(Clone, Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar that is shown, or one that is not.
    #[must_use]
    pub fn new(shown: bool) -> Self {
        // Ten times a second: more is only flicker.
        let target =
            if shown { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(STEPS.into()), target);
        match ProgressStyle::with_template("{bar:40} {percent:>3} %  {elapsed} + {eta}") {
            Ok(style) => Self(bar.with_style(style)),
            Err(_) => Self(bar),
        }
    }

    /// Says how much is done, from 0 to 1.
    pub fn set(&self, fraction: f64) {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=STEPS before"
        )]
        let step = (fraction.clamp(0.0, 1.0) * f64::from(STEPS)) as u64;
        self.0.set_position(step);
    }

    /// Writes to the terminal without tearing the bar.
    pub fn suspend<R>(&self, write: impl FnOnce() -> R) -> R {
        self.0.suspend(write)
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
