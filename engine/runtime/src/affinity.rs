//! Which CPUs a thread, or the kernel's threads that work for it, may run on.

use std::io;

/// CPUs that the kernel's sets have room for.
pub const CPUS_MAX: usize = libc::CPU_SETSIZE as usize;
const WORDS: usize = CPUS_MAX / u64::BITS as usize;

/// A set of CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuBits([u64; WORDS]);

impl CpuBits {
    /// The set of these CPUs; `None` if one is not below [`CPUS_MAX`].
    pub fn of(cpus: impl IntoIterator<Item = usize>) -> Option<Self> {
        let mut bits = Self::default();
        for cpu in cpus {
            *bits.0.get_mut(cpu / 64)? |= 1 << (cpu % 64);
        }
        Some(bits)
    }

    /// The set in the kernel's form.
    pub(crate) fn to_kernel(self) -> libc::cpu_set_t {
        // SAFETY: all-zero bytes are an empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        for cpu in (0..CPUS_MAX).filter(|cpu| self.0[cpu / 64] & (1 << (cpu % 64)) != 0) {
            // SAFETY: `cpu` is below the set's size.
            unsafe { libc::CPU_SET(cpu, &mut set) };
        }
        set
    }
}

/// Binds the calling thread to a CPU.
pub(crate) fn pin_thread(cpu: usize) -> io::Result<()> {
    let bits = CpuBits::of([cpu]).ok_or(io::ErrorKind::InvalidInput)?;
    let set = bits.to_kernel();
    // SAFETY: the set is valid for reading its size.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_those_of_the_kernel() {
        let bits = CpuBits::of([0, 63, 64, CPUS_MAX - 1]).unwrap();
        let set = bits.to_kernel();
        // SAFETY: all numbers are below the set's size.
        let members = (0..CPUS_MAX).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) });
        assert_eq!(members.collect::<Vec<_>>(), [0, 63, 64, CPUS_MAX - 1]);
        assert_eq!(CpuBits::of([CPUS_MAX]), None);
        assert!(pin_thread(CPUS_MAX).is_err());
    }
}
