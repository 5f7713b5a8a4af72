//! What a run counts. Each thread counts for itself; sums are taken a few times a second.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::encoder::Operation;

/// The longest latency that is told apart from longer ones.
pub(crate) const LATENCY_MAX: Duration = Duration::from_secs(600);

/// No latencies yet; in nanoseconds, up to [`LATENCY_MAX`], told apart to a thousandth.
pub(crate) fn latencies() -> Histogram<u64> {
    let longest = LATENCY_MAX.as_nanos() as u64;
    Histogram::new_with_bounds(1, longest, 3).expect("the bounds are valid")
}

/// What can be wrong with an answer or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// The answer to a GET was not the value that belongs to the key.
    WrongValue,
    /// The server said `SERVER_ERROR`.
    ServerError,
    /// The server said `CLIENT_ERROR` or `ERROR`.
    ClientError,
    /// A SET was not stored.
    NotStored,
    /// The answer could not be understood; the connection was given up.
    BadReply,
    /// The connection ended or failed.
    ConnectionLost,
    /// No answer came for too long; the connection was given up.
    NoAnswer,
}

impl ErrorKind {
    pub(super) const ALL: [Self; 7] = [
        Self::WrongValue,
        Self::ServerError,
        Self::ClientError,
        Self::NotStored,
        Self::BadReply,
        Self::ConnectionLost,
        Self::NoAnswer,
    ];

    /// The kind's name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::WrongValue => "wrong value",
            Self::ServerError => "server error",
            Self::ClientError => "client error",
            Self::NotStored => "not stored",
            Self::BadReply => "unreadable reply",
            Self::ConnectionLost => "connection lost",
            Self::NoAnswer => "no answer",
        }
    }
}

/// Errors of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct ErrorCount {
    pub(super) count: u64,
    /// The text of the first one.
    pub(super) first: Option<String>,
}

/// Counts and latencies of a stretch of a run.
#[derive(Clone, Debug)]
pub(super) struct Statistics {
    /// Latencies of answered GETs, in nanoseconds.
    pub(super) get: Histogram<u64>,
    /// Latencies of answered SETs, in nanoseconds.
    pub(super) set: Histogram<u64>,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) connections_lost: usize,
    errors: [ErrorCount; ErrorKind::ALL.len()],
}

impl Statistics {
    pub(super) fn new() -> Self {
        let histogram = latencies();
        Self {
            get: histogram.clone(),
            set: histogram,
            hits: 0,
            misses: 0,
            connections_lost: 0,
            errors: Default::default(),
        }
    }

    /// Counts one answered operation.
    pub(super) fn record(&mut self, operation: Operation, latency: Duration) {
        let nanoseconds = latency.as_nanos() as u64;
        match operation {
            Operation::Get => self.get.saturating_record(nanoseconds),
            Operation::Set => self.set.saturating_record(nanoseconds),
        }
    }

    /// Counts one error; `text` is asked for only if it is the first of its kind.
    pub(super) fn fail(&mut self, kind: ErrorKind, text: impl FnOnce() -> String) {
        let error = &mut self.errors[kind as usize];
        error.count += 1;
        error.first.get_or_insert_with(text);
    }

    /// Counts one connection that is gone.
    pub(super) fn lose_connection(&mut self, kind: ErrorKind, text: String) {
        self.connections_lost += 1;
        self.fail(kind, || text);
    }

    /// The errors of one kind.
    pub(super) fn error(&self, kind: ErrorKind) -> &ErrorCount {
        &self.errors[kind as usize]
    }

    /// All errors.
    pub(super) fn errors_total(&self) -> u64 {
        self.errors.iter().map(|error| error.count).sum()
    }

    /// Answered operations.
    pub(super) fn operations(&self) -> u64 {
        self.get.len() + self.set.len()
    }

    /// The share of GETs that found their key; `None` without GETs.
    pub(super) fn hit_ratio(&self) -> Option<f64> {
        let gets = self.hits + self.misses;
        (gets > 0).then(|| self.hits as f64 / gets as f64)
    }

    /// The 99th percentile over both operations' latencies.
    pub(super) fn p99(&self) -> Duration {
        let mut both = self.get.clone();
        both.add(&self.set).expect("both histograms have the same bounds");
        Duration::from_nanos(both.value_at_quantile(0.99))
    }

    /// Moves all counts into `sum` and starts from zero.
    pub(super) fn move_into(&mut self, sum: &mut Self) {
        sum.get.add(&self.get).expect("both histograms have the same bounds");
        sum.set.add(&self.set).expect("both histograms have the same bounds");
        self.get.reset();
        self.set.reset();
        sum.hits += std::mem::take(&mut self.hits);
        sum.misses += std::mem::take(&mut self.misses);
        sum.connections_lost += std::mem::take(&mut self.connections_lost);
        for (sum, error) in sum.errors.iter_mut().zip(&mut self.errors) {
            sum.count += std::mem::take(&mut error.count);
            let first = error.first.take();
            sum.first = sum.first.take().or(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_adds_everything_and_leaves_nothing() {
        let (mut part, mut sum) = (Statistics::new(), Statistics::new());
        for round in 1..=2u64 {
            part.record(Operation::Get, Duration::from_micros(100));
            part.record(Operation::Set, Duration::from_secs(100_000));
            part.hits += 3;
            part.misses += 1;
            part.lose_connection(ErrorKind::ConnectionLost, format!("loss {round}"));
            part.move_into(&mut sum);
            assert_eq!((part.operations(), part.errors_total(), part.hit_ratio()), (0, 0, None));
            assert_eq!((sum.operations(), sum.errors_total()), (2 * round, round));
        }
        assert_eq!(sum.hit_ratio(), Some(0.75));
        assert_eq!(sum.connections_lost, 2);
        assert_eq!(sum.error(ErrorKind::ConnectionLost).first.as_deref(), Some("loss 1"));
        assert!(sum.p99() >= LATENCY_MAX, "an endless latency counts as the longest");
        assert_eq!(sum.get.value_at_quantile(0.5) / 1_000, 100);
    }

    #[test]
    fn every_kind_has_its_own_place() {
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{}", kind.name());
        }
    }
}
