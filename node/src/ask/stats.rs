//! `larder stats`: a running node in figures.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Number, Value};

use super::{NodeArgs, exit, open};

const STATS_HELP: &str = "\
A line is NAME<TAB>VALUE. With --json all are one object, with numbers as numbers.

Exit code: 0 done, 2 an error.

  larder stats --json | jq .cmd_get";

/// `larder stats`.
#[derive(Args, Clone, Debug)]
#[command(after_help = STATS_HELP)]
pub struct StatsArgs {
    #[command(flatten)]
    node: NodeArgs,
}

/// Prints the node's figures.
pub fn stats(args: &StatsArgs) -> ExitCode {
    exit(|| {
        let values = open(&args.node)?.statistics()?;
        let mut out = BufWriter::new(io::stdout().lock());
        if args.node.json {
            let values = values.into_iter().map(|(name, value)| (name, shown(value)));
            writeln!(out, "{}", Value::Object(values.collect::<Map<_, _>>()))?;
        } else {
            for (name, value) in values {
                writeln!(out, "{name}\t{value}")?;
            }
        }
        out.flush()?;
        Ok(true)
    })
}

/// A value as JSON has it.
fn shown(value: String) -> Value {
    let whole = || value.parse::<u64>().ok().map(Number::from);
    let with_part = || value.parse::<f64>().ok().and_then(Number::from_f64);
    // A version like 1.6 is text: only what is written with six digits is measured.
    let is_measured = value.split_once('.').is_some_and(|(_, part)| part.len() == 6);
    let number = whole().or_else(|| if is_measured { with_part() } else { None });
    number.map_or(Value::String(value), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numbers_and_text_is_text() {
        let shown = |value: &str| shown(value.to_owned()).to_string();
        assert_eq!(shown("18446744073709551615"), "18446744073709551615");
        assert_eq!((shown("0.250000"), shown("1.6.45")), ("0.25".into(), "\"1.6.45\"".into()));
        assert_eq!(
            (shown("sync"), shown("1.6"), shown("-1")),
            ("\"sync\"".into(), "\"1.6\"".into(), "\"-1\"".into())
        );
    }
}
