//! Wakes the runner when a file that others write has changed.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What others write: the shim, the boot script, and the wrapper around it.
const NAMES: [&[u8]; 5] = [b"state", b"pid", b"ungated", b"phase", b"exit"];

/// Directories under watch.
pub(crate) struct Watch {
    inotify: AsyncFd<OwnedFd>,
}

impl Watch {
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { inotify: readable(inotify)? })
    }

    /// Adding a directory again changes nothing.
    pub(crate) fn add(&self, directory: &Path) -> io::Result<()> {
        let flags = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
        inotify::add_watch(self.inotify.get_ref(), directory, flags)?;
        Ok(())
    }

    /// Resolves once one of the files may have changed. Safe to drop at any time.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            if drain(self.inotify.get_ref())? {
                return Ok(());
            }
            ready.clear_ready();
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

/// Reads all that is there; true as soon as something of interest was.
fn drain(inotify: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let mut reader = Reader::new(inotify, &mut buffer);
    let mut found = false;
    loop {
        if found && reader.is_buffer_empty() {
            return Ok(true);
        }
        match reader.next() {
            Ok(event) => {
                let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                found =
                    found || lost || event.file_name().is_some_and(|name| NAMES.contains(&name.to_bytes()));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(found),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
