//! Registries over HTTP: pull, push, credentials. All `async` is here, behind calls that block.
