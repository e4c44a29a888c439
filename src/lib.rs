//! Quipu: one program on PostgreSQL in which what happened is appended and never changed.

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
