//! The door: internal roles first, while the process is single-threaded, then the command line.

fn main() -> std::process::ExitCode {
    builder::sandbox::run_internal_role();
    builder::cli::main()
}
