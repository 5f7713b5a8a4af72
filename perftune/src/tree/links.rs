//! Links of another root: followed as the system with that root would follow them.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// How many links of a path are followed: as many as the kernel follows.
const LINKS_MAX: usize = 40;
const UP: &str = "..";

/// Where a path below `root` is, all links followed. None leads out: what begins with `/` begins
/// at `root`, and nothing is above that. Parts that are not there are taken as they are.
///
/// # Errors
/// If there are too many links, or a part cannot be looked at.
pub(super) fn resolved(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut place = PathBuf::new();
    let mut open = parts(path);
    let mut links = 0;
    while let Some(part) = open.pop() {
        if part == UP {
            place.pop();
            continue;
        }
        match fs::read_link(root.join(&place).join(&part)) {
            Ok(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(rustix::io::Errno::LOOP.into());
                }
                if target.is_absolute() {
                    place = PathBuf::new();
                }
                open.extend(parts(&target));
            }
            Err(error) if is_no_link(&error) => place.push(part),
            Err(error) => return Err(error),
        }
    }
    Ok(root.join(place))
}

/// What is something else than a link, or is not there.
fn is_no_link(error: &io::Error) -> bool {
    use ErrorKind::{InvalidInput, NotADirectory, NotFound};
    matches!(error.kind(), InvalidInput | NotADirectory | NotFound)
}

/// The parts of a path, the last first.
fn parts(path: &Path) -> Vec<OsString> {
    let part = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(UP.into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(part).collect()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the test makes a tree of links")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_leads_out_of_the_root() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("usr/lib")).expect("made");
        let link = |target: &str, path: &str| symlink(target, root.join(path)).expect("linked");
        link("/usr/lib", "lib");
        link("../../../../usr/lib/", "etc");
        link("/", "all");
        link("lib/missing", "dangling");
        link("loop", "loop");
        link("/sys", "sys");
        for (path, expected) in [
            ("/usr/lib/x", "usr/lib/x"),
            ("/lib/x", "usr/lib/x"),
            ("/lib/../x", "usr/x"),
            ("/etc/x", "usr/lib/x"),
            ("/all/all/lib", "usr/lib"),
            ("/dangling/x/y", "usr/lib/missing/x/y"),
            ("/../../x", "x"),
            ("relative/./x", "relative/x"),
            ("/", ""),
        ] {
            let place = resolved(&root, Path::new(path)).expect(path);
            assert_eq!(place, root.join(expected), "{path}");
        }
        for path in ["/loop", "/sys/kernel", "/loop/.."] {
            let error = resolved(&root, Path::new(path)).expect_err(path);
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
        }
    }
}
