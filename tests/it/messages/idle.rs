//! Idle connections beside busy ones.
