//! The `quipu` command: parse, run, exit code.

fn main() {}
