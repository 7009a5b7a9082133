//! Build inputs: directories of the host and roots of stages; which of their files an instruction selects, and the digest of
//! what was selected.
