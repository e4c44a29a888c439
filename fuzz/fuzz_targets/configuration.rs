//! Arbitrary bytes as a settings file and as environment variables: settings are accepted or refused with an
//! error, without a panic.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use quipu::config::{Configuration, Environment, Sources};

/// A temporary implementation; its settings file is rewritten for each input.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("quipu-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("config")).expect("the temporary folder can be written");
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (yaml, variables) = text.split_once('\u{1}').unwrap_or((&text, ""));
    std::fs::write(FOLDER.join("config/brotr.yaml"), yaml).expect("the file can be written");
    let environment: Environment = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| name.starts_with("QUIPU__"))
        .collect();
    let sources = Sources {
        implementation: FOLDER.to_str().expect("the path is UTF-8").to_owned(),
        environment,
        working_dir: FOLDER.join("elsewhere"),
        settings_file: None,
        overrides: Vec::new(),
    };
    if let Err(error) = Configuration::load(sources) {
        assert!(!error.to_string().is_empty());
    }
});
