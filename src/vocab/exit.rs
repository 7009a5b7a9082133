//! The exit codes: one per class of failure, so that a pipeline can tell them apart.

/// How the program ends. The numbers are a contract (see `docs/exit-codes.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    Success = 0,
    /// A bug of the builder, or an error that fits no other class.
    Internal = 1,
    /// The command line or a configuration file is wrong.
    Usage = 2,
    /// The Dockerfile is wrong: syntax, unknown stage, bad variable, refused construct.
    Dockerfile = 3,
    /// An input could not be had: base image, context, named context, credentials for pulling.
    Source = 4,
    /// A step ran and failed: RUN exited with an error, COPY could not do what was asked.
    Step = 5,
    /// The image was built and could not be delivered.
    Export = 6,
    /// `--timeout` ran out.
    Timeout = 7,
    /// No way to run steps in this environment.
    Sandbox = 8,
    /// The state directory cannot be used: full, read-only, of another format, damaged.
    Store = 9,
    /// SIGINT.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

impl ExitCode {
    /// All of them, in the order of their numbers.
    pub const ALL: [ExitCode; 12] = [
        ExitCode::Success,
        ExitCode::Internal,
        ExitCode::Usage,
        ExitCode::Dockerfile,
        ExitCode::Source,
        ExitCode::Step,
        ExitCode::Export,
        ExitCode::Timeout,
        ExitCode::Sandbox,
        ExitCode::Store,
        ExitCode::Interrupted,
        ExitCode::Terminated,
    ];

    /// Returns in a few words what it says has failed.
    pub fn what_failed(self) -> &'static str {
        match self {
            ExitCode::Success => "nothing",
            ExitCode::Internal => "the program itself, or nothing below fits",
            ExitCode::Usage => "the command line or a configuration file",
            ExitCode::Dockerfile => "the Dockerfile",
            ExitCode::Source => "getting an input",
            ExitCode::Step => "a step",
            ExitCode::Export => "delivering the result",
            ExitCode::Timeout => "time",
            ExitCode::Sandbox => "the environment",
            ExitCode::Store => "the state directory",
            ExitCode::Interrupted => "SIGINT",
            ExitCode::Terminated => "SIGTERM or SIGHUP",
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> std::process::ExitCode {
        std::process::ExitCode::from(code as u8)
    }
}
