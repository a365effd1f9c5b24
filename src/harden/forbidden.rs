//! Test builds only: a process that confines itself as one of ours and then tries what it must not.
//!
//! One act a process, because some of them are its end. Prints what came of it as one word: `done`, or the error's.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior, test_kill_process};

/// Tries one act, such as `read:/etc/passwd`.
///
/// # Errors
/// What the kernel said.
pub fn attempt(act: &str) -> io::Result<()> {
    let (verb, object) = act.split_once(':').unwrap_or((act, ""));
    match verb {
        "read" => File::open(object).map(drop),
        "write" => OpenOptions::new()
            .append(true)
            .create(true)
            .open(object)
            .map(drop),
        "list" => std::fs::read_dir(object).map(drop),
        "connect" => TcpStream::connect(object).map(drop),
        "bind" => TcpListener::bind(object).map(drop),
        // In this process, which ends with it one way or the other.
        "exec" => Err(Command::new(object).exec()),
        "spawn" => Command::new(object).status().map(drop),
        "signal" => {
            let pid = object.parse().ok().and_then(Pid::from_raw);
            let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
            Ok(test_kill_process(pid)?)
        }
        "packet" => Ok(socket(AddressFamily::PACKET, SocketType::RAW, None).map(drop)?),
        "unix" => Ok(socket(AddressFamily::UNIX, SocketType::STREAM, None).map(drop)?),
        "dumpable" => Ok(set_dumpable_behavior(DumpableBehavior::Dumpable)?),
        "thread" => {
            let thread = std::thread::Builder::new().spawn(|| ())?;
            thread
                .join()
                .map_err(|_| io::Error::other("the thread panicked"))
        }
        "nothing" => Ok(()),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}
