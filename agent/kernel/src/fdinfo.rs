//! What the kernel says of a descriptor in `/proc/self/fdinfo`.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
};

/// Lines of the form `name:` and a value.
pub(crate) struct FdInfo(String);

impl FdInfo {
    /// Those of an open descriptor.
    pub(crate) fn read(fd: &OwnedFd) -> io::Result<Self> {
        fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).map(Self)
    }

    /// A value that is a number; its name is given with the colon.
    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name));
        line?.trim().parse().ok()
    }
}
