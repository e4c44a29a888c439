//! The `quipu` command: parse, run, exit code.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use quipu::base::with_causes;
use quipu::cli::Cli;
use quipu::telemetry::notice;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::of_process();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let code = runtime.block_on(cli.run()).unwrap_or_else(|error| failed(&error));
    // Do not wait for threads that block: one that reads standard input does not end after Ctrl-C.
    runtime.shutdown_background();
    code
}

fn failed(error: &anyhow::Error) -> ExitCode {
    notice(format_args!("quipu: {}", with_causes(error.as_ref())));
    ExitCode::FAILURE
}
