//! What one durable write costs on the device itself, measured by fio.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::error::VersusError;
use crate::host;

/// Bytes of the file that fio writes over and over, front to back.
const FILE_BYTES: usize = 64 << 20;

/// Median latency of a 4 KiB direct write followed by a flush, in microseconds: the sum of the
/// medians of write and flush. Runs for `seconds` on processor `cpu`, on a file in `directory`.
pub(super) fn write_and_flush_us(
    directory: &Path,
    cpu: usize,
    seconds: f64,
) -> Result<f64, VersusError> {
    let path = directory.join("fio.data");
    preallocate(&path).map_err(|source| VersusError::File {
        option: "--data-dir",
        path: path.clone(),
        source,
    })?;
    let output = Command::new("taskset")
        .args(["-c", &cpu.to_string(), "fio", "--name=w", "--rw=write", "--bs=4k", "--direct=1"])
        .args(["--ioengine=sync", "--fdatasync=1", "--fallocate=none", "--overwrite=1"])
        .args(["--time_based", "--output-format=json"])
        .arg(format!("--runtime={}", seconds.ceil().max(1.0)))
        .arg(format!("--size={FILE_BYTES}"))
        .arg(format!("--filename={}", path.display()))
        .output()
        .map_err(|source| VersusError::Spawn {
            program: "taskset".to_owned(),
            option: "package util-linux",
            source,
        })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(VersusError::Fio(format!("{} ({})", text.trim(), output.status)));
    }
    parse(&String::from_utf8_lossy(&output.stdout)).map_err(VersusError::Fio)
}

/// Fills the file with zeros, so that no write has to allocate: as the node's segments are.
fn preallocate(path: &Path) -> std::io::Result<()> {
    let mut file = host::create_file(path)?;
    let zeros = vec![0u8; 1 << 20];
    for _ in 0..FILE_BYTES / zeros.len() {
        file.write_all(&zeros)?;
    }
    file.sync_all()
}

/// The sum of the medians in fio's JSON, in microseconds.
fn parse(text: &str) -> Result<f64, String> {
    // fio may print notes before the JSON begins.
    let start = text.find('{').ok_or("the output has no JSON")?;
    let output: Value = serde_json::from_str(&text[start..])
        .map_err(|error| format!("the output is not understood: {error}"))?;
    let error = output.pointer("/jobs/0/error").and_then(Value::as_i64);
    if error != Some(0) {
        return Err(format!("the job ended with error {error:?}"));
    }
    let median = |pointer: &str| {
        let value = output.pointer(pointer).and_then(Value::as_f64);
        value.ok_or_else(|| format!("the output has no {pointer}"))
    };
    let write = median("/jobs/0/write/clat_ns/percentile/50.000000")?;
    let flush = median("/jobs/0/sync/lat_ns/percentile/50.000000")?;
    Ok((write + flush) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = r#"note: both iodepth >= 1 and synchronous I/O engine are selected
{
  "fio version" : "fio-3.33",
  "jobs" : [
    {
      "jobname" : "w",
      "error" : 0,
      "write" : {
        "total_ios" : 9200,
        "clat_ns" : {
          "mean" : 53000.5,
          "percentile" : { "1.000000" : 38144, "50.000000" : 50432, "99.000000" : 90624 }
        }
      },
      "sync" : {
        "lat_ns" : {
          "mean" : 53545.6,
          "percentile" : { "1.000000" : 36096, "50.000000" : 50944, "99.000000" : 111104 }
        }
      }
    }
  ]
}"#;

    #[test]
    fn the_medians_of_write_and_flush_are_added() {
        assert_eq!(parse(OUTPUT), Ok(101.376));
    }

    #[test]
    fn an_incomplete_answer_is_refused() {
        for (text, reason) in [
            (String::new(), "no JSON"),
            (OUTPUT[..300].to_owned(), "not understood"),
            (OUTPUT.replace("\"error\" : 0", "\"error\" : 5"), "error Some(5)"),
            (OUTPUT.replace("sync\"", "none\""), "sync/lat_ns"),
            (OUTPUT.replace("clat_ns", "slat_ns"), "write/clat_ns"),
        ] {
            let error = parse(&text).expect_err("refused");
            assert!(error.contains(reason), "{error}");
        }
    }
}
