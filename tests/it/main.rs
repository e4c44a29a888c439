//! One test binary. A test that cannot get its part fails; it does not skip.

mod embedded;
