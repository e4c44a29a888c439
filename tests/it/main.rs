//! One test binary. A test that cannot get its part fails; it does not skip.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml exempts only functions marked #[test], not what they call"
)]

mod embedded;
