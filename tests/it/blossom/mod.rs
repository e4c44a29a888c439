//! Tests of blobs: the endpoints, the copies on upstreams that behave well and badly, and what the loops make of them.

mod cli;
mod client_kit;
mod cors;
mod crashes;
mod delete;
mod download;
mod guardian;
mod info;
mod journals;
mod kit;
mod list;
mod media;
mod mirror;
mod property;
mod prove;
mod repair;
mod replication;
mod report;
mod sdk;
mod server_kit;
mod upload;
mod upstreams;
mod upstreams_tls;
