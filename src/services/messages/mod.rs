//! Messages: stored, then forwarded, until each device of the recipient has acknowledged them or their time is over.

pub mod edge;
