//! The control socket as those who ask meet it: the server in this process, and the real commands reading from it.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that fails should say so, and not hang"
)]

#[path = "control/commands.rs"]
mod commands;
#[path = "control/hostile.rs"]
mod hostile;
#[path = "control/port.rs"]
mod port;
#[path = "control/sensor.rs"]
mod sensor;
#[path = "control/streams.rs"]
mod streams;
#[path = "control/top.rs"]
mod top;
