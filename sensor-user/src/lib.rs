//! Tokenscope's agent: from captured TCP segments to alerts about the tokens in them.
//!
//! The data path is `capture -> reassembly -> http -> token -> detect -> alert -> render -> spool -> sink`, and reads on one
//! screen in [`pipeline`]. A stage imports only stages to its left. ARCHITECTURE.md is the map.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod alert;
pub mod capture;
pub mod chosen;
pub mod cli;
pub mod config;
pub mod control;
pub mod deliver;
pub mod detect;
pub mod enrich;
pub mod http;
pub mod parked;
pub mod pipeline;
pub mod reassembly;
pub mod render;
pub mod runtime;
pub mod seen;
pub mod shedding;
pub mod sink;
pub mod spool;
pub mod store;
pub mod telemetry;
pub mod token;
