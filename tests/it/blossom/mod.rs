//! Tests of blobs: the endpoints, the copies on upstreams that behave well and badly, and what the loops make of them.

mod client_kit;
mod kit;
mod property;
mod sdk;
mod server_kit;
mod upload;
mod upstreams;
mod upstreams_tls;
