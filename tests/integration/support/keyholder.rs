//! The real keyholder without a gate: whoever holds the other end of its socket may ask what a gate would not.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use priorgate::policy::keyproto::{Answer, Held, KeyId, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    listen, recv, send, socket_with, socketpair,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{PATIENCE, eventually};

/// A running keyholder. Killed when dropped; its signer ends with it.
pub(crate) struct Keyholder {
    pub(crate) monitor: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// One end of a connection to it.
pub(crate) struct Caller {
    socket: OwnedFd,
    next: u64,
}

fn packets() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

impl Keyholder {
    /// In the spawned form, with the caller at the other end of a pair.
    pub(crate) fn connected(config: &Path) -> (Self, Caller) {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let keyholder = Self::start(config, theirs, |_| {});
        (keyholder, Caller::new(ours))
    }

    /// In the packaged form: `listener` is what a service manager would keep.
    pub(crate) fn listening(config: &Path, listener: &OwnedFd) -> Self {
        Self::start(config, listener.try_clone().unwrap(), |_| {})
    }

    pub(crate) fn start(config: &Path, stdin: OwnedFd, adjust: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_priorgate"));
        command
            .arg("keyholder")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        adjust(&mut command);
        let mut monitor = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let stderr = BufReader::new(monitor.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Self { monitor, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.monitor.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub(crate) fn lines(&self, message: &str) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        let parsed = log
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok());
        parsed
            .filter(|line: &Value| line["message"] == message)
            .collect()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the keyholder ends", || self.monitor.try_wait().unwrap())
    }
}

impl Drop for Keyholder {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

/// A listening socket at a path, as `ListenSequentialPacket=` makes it.
pub(crate) fn listener(path: &Path) -> OwnedFd {
    let socket = packets();
    bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    listen(&socket, 16).unwrap();
    socket
}

impl Caller {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, next: 1 }
    }

    pub(crate) fn at(path: &Path) -> Self {
        let socket = packets();
        connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        Self::new(socket)
    }

    /// Sends a packet as it stands.
    pub(crate) fn send(&self, packet: &[u8]) {
        send(&self.socket, packet, SendFlags::NOSIGNAL).unwrap();
    }

    /// The next packet; `None` at the end of the connection.
    pub(crate) fn hear(&self) -> Option<(u64, Answer)> {
        let timeout = Timespec::try_from(PATIENCE).unwrap();
        let mut readable = [PollFd::new(&self.socket, PollFlags::IN)];
        assert_eq!(poll(&mut readable, Some(&timeout)), Ok(1), "no answer");
        let mut buffer = vec![0; 1 << 16];
        match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) | Err(_) => None,
            Ok((size, _)) => Some(Answer::decode(&buffer[..size]).unwrap()),
        }
    }

    /// Asks, and reads on until its own answer.
    pub(crate) fn ask(&mut self, request: &Request<'_>) -> Answer {
        let id = self.next;
        self.next += 1;
        self.send(&request.encode(id));
        loop {
            let (answered, answer) = self.hear().expect("the connection stands");
            if answered == id {
                return answer;
            }
        }
    }

    pub(crate) fn keys(&mut self) -> (u32, Vec<Held>) {
        match self.ask(&Request::Keys) {
            Answer::Keys { pid, keys } => (pid, keys),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn sign(&mut self, key: KeyId, scheme: u16, message: &[u8]) -> Answer {
        self.ask(&Request::Sign {
            key,
            scheme,
            message,
        })
    }
}
