//! What both halves of the sensor must agree on.
//!
//! The programs themselves are in `main.rs` and are built for the kernel only; this library is
//! plain data and builds everywhere.
#![no_std]
#![forbid(unsafe_code)]

pub mod wire;
