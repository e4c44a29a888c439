//! The length of the long tests: random lives, crashes, memory.

/// How many times as long as in `make test` they are: `QUIPU_TEST_ROUNDS`, which `make soak` sets, or 1.
pub(crate) fn rounds() -> u64 {
    let Some(text) = std::env::var_os("QUIPU_TEST_ROUNDS") else { return 1 };
    let rounds = text.to_str().and_then(|text| text.parse().ok()).filter(|rounds| *rounds > 0);
    rounds.unwrap_or_else(|| panic!("QUIPU_TEST_ROUNDS is {}: expected a number from 1", text.display()))
}
