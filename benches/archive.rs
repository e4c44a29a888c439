//! `make bench-archive`.
fn main() {}
