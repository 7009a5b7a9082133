//! When to try again, and how long to wait: limits of time and number in one place.

use std::time::Duration;

use crate::vocab::RegistryOptions;

use super::error::RegistryError;

/// Every limit of the room. Tests make them tiny.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// For one connection to stand.
    pub(super) connect: Duration,
    /// Without a byte in either direction.
    pub(super) idle: Duration,
    /// For the registry to take in a finished upload or a manifest: it may move gigabytes on its side.
    pub(super) commit: Duration,
    /// For a credential helper.
    pub(super) helper: Duration,
    /// Attempts in all, the first included.
    pub(super) tries: u32,
    /// The first pause; each next one is twice as long.
    pub(super) pause: Duration,
    pub(super) longest_pause: Duration,
    /// A registry that wants to be left alone for longer than this is not asked again: the build should fail now.
    pub(super) longest_retry_after: Duration,
    /// A transfer that got this much further earns its attempts anew.
    pub(super) progress: u64,
    /// A blob of at most this size goes up with its commit: one request less, and nothing worth resuming.
    pub(super) small_blob: u64,
    /// Of an upload, this much goes in one request where a registry was seen to lose what a broken request brought.
    pub(super) piece: u64,
    /// Where one request's body was too large: no larger than the first, no smaller than the second.
    pub(super) largest_piece: u64,
    pub(super) smallest_piece: u64,
    /// A blob for an object store goes in pieces of this size. Those of S3 are no smaller than 5 MiB.
    pub(super) object_piece: u64,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            connect: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            commit: Duration::from_secs(300),
            helper: Duration::from_secs(30),
            tries: 5,
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(10),
            longest_retry_after: Duration::from_secs(60),
            progress: 1024 * 1024,
            small_blob: 64 * 1024,
            piece: 16 * 1024 * 1024,
            largest_piece: 64 * 1024 * 1024,
            smallest_piece: 1024 * 1024,
            object_piece: 8 * 1024 * 1024,
        }
    }
}

impl Tuning {
    /// Returns limits under which failures are quick.
    #[cfg(test)]
    pub(super) fn for_tests() -> Tuning {
        Tuning {
            pause: Duration::from_micros(10),
            longest_pause: Duration::from_micros(100),
            progress: 1,
            small_blob: 0,
            piece: 100_000,
            smallest_piece: 1000,
            object_piece: 100_000,
            ..Tuning::default()
        }
    }

    /// Returns the same with what the user says.
    pub(super) fn asked(self, options: &RegistryOptions) -> Tuning {
        let pause = options.retry_delay.unwrap_or(self.pause);
        Tuning {
            tries: options
                .retries
                .map_or(self.tries, |retries| retries.saturating_add(1)),
            pause,
            longest_pause: self.longest_pause.max(pause),
            ..self
        }
    }

    /// Returns how long to wait before reading again what others wrote meanwhile; `round` counts from 0.
    pub(super) fn breath(&self, round: u32) -> Duration {
        let step = self.pause.saturating_mul(1 << round.min(10)) / 8;
        step.min(self.longest_pause).mul_f64(random())
    }

    /// Returns how long to wait after the `failures`-th failure (1, 2, …), or `None` to give up. `luck` in 0..1 spreads clients
    /// that failed together.
    fn wait(&self, failures: u32, retry_after: Option<Duration>, luck: f64) -> Option<Duration> {
        if failures >= self.tries {
            return None;
        }
        let step = self
            .pause
            .saturating_mul(1 << (failures - 1).min(20))
            .min(self.longest_pause);
        let pause = step.mul_f64(0.5 + luck / 2.0);
        match retry_after {
            Some(wanted) if wanted > self.longest_retry_after => None,
            // Never before the moment named, and not all in the same instant.
            Some(wanted) => Some(wanted + self.pause.mul_f64(luck)),
            None => Some(pause),
        }
    }
}

/// Counts the failures of one undertaking.
pub(super) struct Tries {
    tuning: Tuning,
    failures: u32,
}

impl Tries {
    pub(super) fn new(tuning: Tuning) -> Tries {
        Tries {
            tuning,
            failures: 0,
        }
    }

    /// Allows no more than `tries` attempts: there is another place to ask.
    pub(super) fn at_most(mut self, tries: u32) -> Tries {
        self.tuning.tries = self.tuning.tries.min(tries);
        // Nor a wait that the other place would not need.
        self.tuning.longest_retry_after =
            self.tuning.longest_retry_after.min(Duration::from_secs(1));
        self
    }

    /// Waits if the failure may pass, else gives it back.
    pub(super) async fn after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if !error.is_transient() {
            return Err(error);
        }
        self.after_any(error).await
    }

    /// Waits after a failure that the caller knows to be worth another attempt.
    pub(super) async fn after_any(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.failures += 1;
        match self
            .tuning
            .wait(self.failures, error.retry_after(), random())
        {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            None => Err(error),
        }
    }

    /// Forgets the failures: there was progress.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Returns a number in 0..1. No secret hangs on it.
fn random() -> f64 {
    let mut bytes = [0u8; 4];
    // Without randomness (a very early boot) the middle will do.
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(4) => f64::from(u32::from_ne_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        _ => 0.5,
    }
}

/// Reads the value of `Retry-After`: seconds, or a date, of which `now` is subtracted.
pub(super) fn retry_after(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let seconds = moment.as_second().saturating_sub(now.as_second());
    Some(Duration::from_secs(seconds.max(0).unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let tuning = Tuning::default();
        let seconds = |failures, after: Option<u64>, luck| {
            tuning
                .wait(failures, after.map(Duration::from_secs), luck)
                .map(|pause| pause.as_secs_f64())
        };
        assert_eq!(seconds(1, None, 0.0), Some(0.25));
        assert_eq!(seconds(2, None, 0.0), Some(0.5));
        assert_eq!(seconds(4, None, 0.0), Some(2.0));
        assert_eq!(seconds(5, None, 0.0), None);
        assert!(seconds(1, None, 0.99).unwrap() < 0.5);
        // Retry-After is a floor, and a long one is an answer.
        assert_eq!(seconds(1, Some(7), 0.0), Some(7.0));
        assert_eq!(seconds(1, Some(60), 0.0), Some(60.0));
        assert_eq!(seconds(1, Some(61), 0.0), None);
        assert_eq!(seconds(5, Some(1), 0.0), None);
        let many = Tuning {
            tries: 100,
            ..tuning
        };
        assert_eq!(many.wait(99, None, 0.0), Some(Duration::from_secs(5)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = jiff::Timestamp::from_second(784_111_777).unwrap();
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(
                retry_after(text, now),
                seconds.map(Duration::from_secs),
                "{text}"
            );
        };
        check("120", Some(120));
        check(" 3 ", Some(3));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("soon", None);
        check("-1", None);
        check("", None);
    }
}
