//! How many files may be open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one: a root of many layers takes a descriptor for each. Commands get the
/// raised limit too, unless `--ulimit nofile` says otherwise. Where it cannot be raised it stays.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // A machine that refuses is one where small builds still work.
        let _refused = setrlimit(Resource::Nofile, raised).is_err();
    }
}
