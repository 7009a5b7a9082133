//! Counts the work of reading a text in tests, so that a claim of linear time can be checked without a clock.

#[cfg(test)]
thread_local! {
    static DONE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Notes that so many bytes, characters or items were looked at. Nothing outside tests.
#[inline]
pub(super) fn note(amount: usize) {
    #[cfg(test)]
    DONE.with(|done| done.set(done.get() + amount));
    #[cfg(not(test))]
    let _ = amount;
}

/// Returns what a call looked at.
#[cfg(test)]
pub(super) fn of(call: impl FnOnce()) -> usize {
    let before = DONE.with(std::cell::Cell::get);
    call();
    DONE.with(std::cell::Cell::get) - before
}
