//! A file system of a test's own, so that it can be full without harm to anybody else.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::scratch::Scratch;

/// ext4 on a loop device over a sparse file; unmounted when it is dropped.
#[derive(Debug)]
pub struct FileSystem {
    mount: PathBuf,
    /// Holds the image and the directory that it is mounted on.
    _scratch: Scratch,
}

impl FileSystem {
    /// A new file system of about `bytes`. The error says what is missing here: it takes root,
    /// `mkfs.ext4` and a loop device.
    pub fn new(bytes: u64) -> Result<Self, String> {
        let scratch = Scratch::new("file-system");
        let (image, mount) = (scratch.path().join("image"), scratch.path().join("mount"));
        std::fs::create_dir(&mount).expect("a directory to mount on");
        let file = std::fs::File::create(&image).expect("a file for the image");
        file.set_len(bytes).expect("a sparse file");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount))?;
        Ok(Self { mount, _scratch: scratch })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Takes all space that is left but for `bytes`; it is given back when the file that is
    /// returned is removed.
    pub fn take_all_but(&self, bytes: u64) -> PathBuf {
        let path = self.mount.join("outside");
        loop {
            let file = std::fs::File::create(&path).expect("a file from outside");
            let free = rustix::fs::statvfs(&self.mount).expect("a file system");
            let taken = (free.f_bavail * free.f_frsize).saturating_sub(bytes);
            let flags = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&file, flags, 0, taken) {
                Ok(()) => return path,
                // A node that runs has taken some meanwhile.
                Err(rustix::io::Errno::NOSPC) => {}
                Err(error) => panic!("cannot take {taken} bytes: {error}"),
            }
        }
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let unmounted = run(Command::new("umount").arg(&self.mount));
        if let Err(reason) = unmounted {
            eprintln!("{} stays mounted: {reason}", self.mount.display());
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"));
    let output = output?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{name}: {}", errors.trim())) }
}
