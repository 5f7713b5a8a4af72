//! How long work goes on, for people: a line on stderr that changes, where stderr is a terminal.

use std::cell::Cell;
use std::io::{self, IsTerminal, Read};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What takes no longer than this is not worth a line.
const SHOWN_AFTER: Duration = Duration::from_millis(500);

/// How often the line changes, so that a slow way to the terminal is not filled with it.
const CHANGES_A_SECOND: u8 = 4;

/// Whether progress is shown.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct ProgressArgs {
    /// Show no progress. It is shown on standard error, if that is a terminal, while work is long
    #[arg(long, short)]
    quiet: bool,
}

/// A line on stderr.
pub(super) struct Progress {
    /// Hidden until it is worth to be shown.
    bar: ProgressBar,
    /// Whether it is still to be shown.
    is_awaited: Cell<bool>,
}

impl ProgressArgs {
    /// Of items that are printed. Where they go to a terminal themselves they show how it goes on,
    /// and a program that reads JSON is told by them.
    pub(super) fn of_items(self, json: bool) -> Progress {
        let template = "{pos} items, {per_sec}, {elapsed}";
        Progress::new(template, !self.quiet && !json && !io::stdout().is_terminal())
    }

    /// Of bytes that are read.
    pub(super) fn of_bytes(self, json: bool) -> Progress {
        let template = "{bytes} read, {bytes_per_sec}, {elapsed}";
        Progress::new(template, !self.quiet && !json && !io::stdin().is_terminal())
    }

    /// Of a value of so many bytes that goes to a node.
    pub(super) fn of_value(self, bytes: u32, json: bool) -> Progress {
        let template = "{bar:30} {bytes}/{total_bytes} {eta}";
        let progress = Progress::new(template, !self.quiet && !json);
        progress.bar.set_length(u64::from(bytes));
        progress
    }
}

impl Progress {
    fn new(template: &str, is_wanted: bool) -> Self {
        let style = ProgressStyle::with_template(template);
        let style = style.expect("the template is well formed");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let is_awaited = is_wanted && io::stderr().is_terminal();
        Self { bar: bar.with_style(style), is_awaited: Cell::new(is_awaited) }
    }

    /// So much more is done.
    pub(super) fn add(&self, done: u64) {
        self.set(self.bar.position() + done);
    }

    /// So much is done.
    pub(super) fn set(&self, done: u64) {
        self.bar.set_position(done);
        if self.is_awaited.get() && self.bar.elapsed() >= SHOWN_AFTER {
            self.is_awaited.set(false);
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(CHANGES_A_SECOND));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// What is read from another, and counted.
pub(super) struct Counted<'p, R> {
    pub source: R,
    pub progress: &'p Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.progress.add(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_counted_and_stays_as_it_is() {
        let progress = Progress::new("{bytes}", false);
        let mut read = Vec::new();
        let mut counted = Counted { source: &b"0123456789"[..], progress: &progress };
        counted.read_to_end(&mut read).expect("memory does not fail");
        assert_eq!((read.as_slice(), progress.bar.position()), (&b"0123456789"[..], 10));
        assert!(progress.bar.is_hidden());
    }
}
