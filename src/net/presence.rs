//! Whether a caller is still there when its answer is ready.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{RecvFlags, recv};

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
        let mut byte = [0_u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(&self.0, &mut byte[..], flags) {
            Ok((_, read)) => read > 0,
            Err(error) => error == rustix::io::Errno::AGAIN,
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
