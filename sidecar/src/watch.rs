//! Wakes the runner when a file that others write has changed.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What the shim writes.
const GATE: [&[u8]; 3] = [b"state", b"pid", b"ungated"];
/// What the boot script and the wrapper around it write.
const BOOT: [&[u8]; 2] = [b"phase", b"exit"];

/// Which files may have changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changed {
    pub(crate) gates: bool,
    pub(crate) boot: bool,
}

/// Directories under watch.
pub(crate) struct Watch {
    inotify: AsyncFd<OwnedFd>,
}

impl Watch {
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { inotify: readable(inotify)? })
    }

    /// Whose files are replaced by rename. Adding a directory again changes nothing.
    pub(crate) fn add(&self, directory: &Path) -> io::Result<()> {
        self.add_for(directory, WatchFlags::MOVED_TO)
    }

    /// Whose files are written in place too.
    pub(crate) fn add_appended(&self, directory: &Path) -> io::Result<()> {
        self.add_for(directory, WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE)
    }

    fn add_for(&self, directory: &Path, flags: WatchFlags) -> io::Result<()> {
        inotify::add_watch(self.inotify.get_ref(), directory, flags)?;
        Ok(())
    }

    /// Resolves once one of the files may have changed. Safe to drop at any time.
    pub(crate) async fn changed(&self) -> io::Result<Changed> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let changed = drain(self.inotify.get_ref())?;
            ready.clear_ready();
            if changed.gates || changed.boot {
                return Ok(changed);
            }
        }
    }
}

/// Lets the runtime wait until this can be read.
#[expect(
    deprecated,
    reason = "its unsafe successor is for types that may change their descriptor; this owns it"
)]
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Reads all that is there.
fn drain(inotify: &OwnedFd) -> io::Result<Changed> {
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let mut reader = Reader::new(inotify, &mut buffer);
    let mut changed = Changed::default();
    loop {
        match reader.next() {
            Ok(event) => {
                let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                let name = event.file_name().map(CStr::to_bytes);
                changed.gates |= lost || name.is_some_and(|name| GATE.contains(&name));
                changed.boot |= lost || name.is_some_and(|name| BOOT.contains(&name));
            }
            Err(Errno::WOULDBLOCK) => return Ok(changed),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
