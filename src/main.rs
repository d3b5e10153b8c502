//! The `keywheel` program: installs the one crypto provider, reads the command line, runs it.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use keywheel::cli;

/// Also of the C code within: SQLite holds most of what is not the program itself.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Fails only when a provider is installed already, and no code before this line installs one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if cli::completed() {
        return ExitCode::SUCCESS;
    }
    let cli = cli::parse();
    // Two threads are plenty for waiting on Atlas, and each costs memory.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(cli::run(cli));
            // A blocked thread must not hold back the end of a process that is done.
            runtime.shutdown_timeout(Duration::from_secs(1));
            code
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: the runtime cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}
