//! Whether a caller is still there when its answer is ready.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A second descriptor of a caller's socket, to look at it beside the connection that serves it.
#[derive(Debug)]
pub struct Presence(OwnedFd);

impl Presence {
    /// Of this socket.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        socket.as_fd().try_clone_to_owned().map(Self)
    }

    /// `false` once the caller has closed its side or broken the connection. A caller that only closed its sending half
    /// counts as gone as well: the two look the same, and holding an answer for one that got it is the lesser harm.
    #[must_use]
    pub fn is_there(&self) -> bool {
        // Asked for the end alone: bytes that nobody has read yet say nothing about who sent them.
        let mut ends = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let now = Timespec::default();
        match poll(&mut ends, Some(&now)) {
            Ok(_) => ends.iter().all(|end| end.revents().is_empty()),
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_caller_is_there_until_it_closes() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let presence = Presence::of(&ours).unwrap();
        assert!(presence.is_there());
        theirs.write_all(b"next request").unwrap();
        assert!(presence.is_there());
        drop(theirs);
        assert!(!presence.is_there(), "whatever it has left unread");
        let (ours, theirs) = UnixStream::pair().unwrap();
        let presence = Presence::of(&ours).unwrap();
        drop(theirs);
        assert!(!presence.is_there());
    }

    #[test]
    fn so_it_is_on_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        let presence = Presence::of(&ours).unwrap();
        assert!(presence.is_there());
        drop(theirs);
        while presence.is_there() {
            std::thread::yield_now();
        }
    }
}
