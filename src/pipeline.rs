//! One build from request to exit: the function that a newcomer reads first.
