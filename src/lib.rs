//! Quipu: one program on PostgreSQL in which what happened is appended and never changed.

// These macros panic when the reader is gone (`| head`): `telemetry::notice` and `cli::output` do not.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod app;
pub mod base;
pub mod cli;
pub mod config;
pub mod http;
pub mod lifecycle;
pub mod net;
pub mod room;
pub mod sample;
pub mod services;
pub mod store;
pub mod telemetry;
