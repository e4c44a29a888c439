//! The `quipu` command: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;
use quipu::base::with_causes;
use quipu::cli::Cli;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("quipu: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
