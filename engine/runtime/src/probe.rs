//! Whether this machine can run the node, and what to do when it cannot.

use std::ffi::CStr;
use std::io;

/// The oldest kernel that has everything the ring uses.
pub const KERNEL_MIN: (u32, u32) = (6, 1);

const DISABLED_FILE: &str = "/proc/sys/kernel/io_uring_disabled";

/// Why a core could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel is older than [`KERNEL_MIN`].
    #[error("the kernel is too old: found {found}, need 6.1 or later; update the kernel")]
    KernelTooOld {
        /// The running kernel's release.
        found: String,
    },
    /// `kernel.io_uring_disabled` forbids io_uring.
    #[error(
        "io_uring is forbidden: kernel.io_uring_disabled is {value}; \
         allow it with `sysctl kernel.io_uring_disabled=0`"
    )]
    Disabled {
        /// The setting's value: 1 forbids it to unprivileged processes, 2 to all.
        value: u32,
    },
    /// Something between the process and the kernel refuses io_uring.
    #[error(
        "io_uring is refused although the kernel has it ({source}): a seccomp profile, usually the \
         container's, blocks it; allow io_uring_setup, io_uring_enter and io_uring_register in \
         the profile, or start the container with `--security-opt seccomp=unconfined`"
    )]
    Seccomp {
        /// What io_uring_setup said.
        source: io::Error,
    },
    /// The ring's memory could not be had.
    #[error(
        "there is no memory for the ring ({source}): RLIMIT_MEMLOCK or the control group's memory \
         limit is too small; raise it with `ulimit -l unlimited` or `LimitMEMLOCK=infinity`"
    )]
    Memory {
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread could not be bound to its CPU.
    #[error("cannot bind the core's thread to CPU {cpu}: {source}; is the CPU online and allowed?")]
    Pin {
        /// The CPU asked for.
        cpu: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another step failed.
    #[error("cannot {step}: {source}")]
    Setup {
        /// What was attempted.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Checks that the running kernel is [`KERNEL_MIN`] or later.
pub fn check_kernel() -> Result<(), StartError> {
    let found = kernel_release()?;
    match parse_release(&found) {
        Some(version) if version >= KERNEL_MIN => Ok(()),
        _ => Err(StartError::KernelTooOld { found }),
    }
}

fn kernel_release() -> Result<String, StartError> {
    // SAFETY: all-zero bytes are a valid `utsname`.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `names` is valid for writing.
    if unsafe { libc::uname(&raw mut names) } != 0 {
        let source = io::Error::last_os_error();
        return Err(StartError::Setup { step: "ask for the kernel's version", source });
    }
    // SAFETY: the kernel ends the release with a zero byte.
    let release = unsafe { CStr::from_ptr(names.release.as_ptr()) };
    Ok(release.to_string_lossy().into_owned())
}

/// The first two numbers of a release such as `6.1.0-18-amd64`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Says why io_uring_setup failed on a kernel that is new enough.
#[allow(clippy::disallowed_methods, reason = "a kernel setting, read once at start")]
pub(crate) fn explain_setup_error(source: io::Error) -> StartError {
    let setting = std::fs::read_to_string(DISABLED_FILE).ok();
    let disabled = setting.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    classify(source, disabled)
}

fn classify(source: io::Error, disabled: u32) -> StartError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) if disabled > 0 => {
            StartError::Disabled { value: disabled }
        }
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => StartError::Seccomp { source },
        Some(libc::ENOMEM) => StartError::Memory { source },
        _ => StartError::Setup { step: "set up io_uring", source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(errno: i32, disabled: u32) -> String {
        classify(io::Error::from_raw_os_error(errno), disabled).to_string()
    }

    #[test]
    fn releases_parse() {
        assert_eq!(parse_release("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(parse_release("6.1-rc2"), Some((6, 1)));
        assert_eq!(parse_release("5.10.0-18-amd64"), Some((5, 10)));
        assert_eq!(parse_release("linux"), None);
        let is_refused = |release| parse_release(release).unwrap() < KERNEL_MIN;
        assert!(is_refused("5.19.0") && is_refused("6.0.9") && !is_refused("10.0"));
    }

    #[test]
    fn this_kernel_is_new_enough() {
        check_kernel().unwrap();
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        let old = StartError::KernelTooOld { found: "5.10.0".into() }.to_string();
        assert!(old.contains("found 5.10.0, need 6.1"), "{old}");
        let disabled = explained(libc::EPERM, 2);
        assert!(disabled.contains("io_uring_disabled is 2"), "{disabled}");
        assert!(disabled.contains("`sysctl kernel.io_uring_disabled=0`"), "{disabled}");
        assert!(explained(libc::EPERM, 0).contains("seccomp"));
        assert!(explained(libc::ENOSYS, 0).contains("seccomp"));
        assert!(explained(libc::ENOMEM, 0).contains("RLIMIT_MEMLOCK"));
        assert!(explained(libc::EINVAL, 0).starts_with("cannot set up io_uring: "));
    }
}
