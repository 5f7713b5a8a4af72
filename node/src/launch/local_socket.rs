//! The socket for clients of the same machine that has a path in place of an address.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::StartError;
use crate::config::FileMode;
use crate::limits::LISTEN_BACKLOG;

/// Binds the socket at `path`, for those whom `mode` allows. What a server that is gone has left
/// there is replaced.
pub(super) fn bind(path: &Path, mode: FileMode) -> Result<UnixListener, StartError> {
    let failed = |operation| move |error: Errno| refuse(path, operation, error);
    match rustix::fs::lstat(path) {
        Err(Errno::NOENT) => {}
        Err(error) => return Err(refuse(path, "look at", error)),
        Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::Socket => {
            return Err(refuse(path, "replace", Errno::EXIST));
        }
        // Nobody answers where the server is gone.
        Ok(_) if UnixStream::connect(path).is_err() => {
            rustix::fs::unlink(path).map_err(failed("remove"))?;
        }
        Ok(_) => return Err(refuse(path, "bind", Errno::ADDRINUSE)),
    }
    let address = SocketAddrUnix::new(path).map_err(failed("bind"))?;
    let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)
        .map_err(failed("make"))?;
    // The path begins with this mode, so that at no time more may connect than are meant to.
    rustix::fs::fchmod(&socket, Mode::empty()).map_err(failed("restrict"))?;
    rustix::net::bind(&socket, &address).map_err(failed("bind"))?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode.0)).map_err(failed("set the mode of"))?;
    rustix::net::listen(&socket, LISTEN_BACKLOG).map_err(failed("listen on"))?;
    Ok(UnixListener::from(socket))
}

fn refuse(path: &Path, operation: &'static str, error: Errno) -> StartError {
    StartError::UnixSocket { path: PathBuf::from(path), operation, source: error.into() }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests make files")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_left_behind_is_replaced_and_what_is_in_use_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let first = bind(&path, FileMode(0o700)).expect("a free path");
        let mode = || std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode(), 0o700);
        let error = bind(&path, FileMode(0o700)).expect_err("in use").to_string();
        assert!(error.contains("in use") && error.contains("--unix-socket"), "{error}");
        drop(first);
        let _second = bind(&path, FileMode(0o666)).expect("nobody answers there");
        assert_eq!(mode(), 0o666);
    }

    #[test]
    fn no_other_file_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("precious");
        std::fs::write(&path, "data").expect("a file");
        let error = bind(&path, FileMode(0o700)).expect_err("a file").to_string();
        assert!(error.starts_with("cannot replace "), "{error}");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"data");
        let long = directory.path().join("n".repeat(200));
        assert!(bind(&long, FileMode(0o700)).is_err(), "no socket has so long a path");
        assert!(bind(Path::new("/nowhere/at/all"), FileMode(0o700)).is_err());
    }
}
