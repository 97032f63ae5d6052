//! What both halves of the sensor must agree on.
//!
//! The programs themselves are in `main.rs` and are built for the kernel only; this library is
//! plain data and pure functions and builds everywhere, so that its tests run on the host.
#![no_std]
#![forbid(unsafe_code)]

pub mod counter;
pub mod ends;
pub mod probe;
pub mod seq;
pub mod wire;
