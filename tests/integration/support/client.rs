//! A caller that writes raw bytes and reads a whole answer: nothing between the scenario and the socket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::PATIENCE;

/// A connection to a listener of the gate.
pub(crate) enum Caller {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Where a caller connects.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }

    pub(crate) fn outcome(&self) -> &str {
        self.header("priorgate-outcome").unwrap_or("no outcome")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The code of a problem; empty when the answer is none.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Target {
    pub(crate) fn connect(&self) -> Caller {
        self.try_connect().unwrap()
    }

    pub(crate) fn try_connect(&self) -> io::Result<Caller> {
        Ok(match self {
            Self::Tcp(addr) => {
                let stream = TcpStream::connect_timeout(addr, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Caller::Tcp(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Caller::Unix(stream)
            }
        })
    }

    /// One request on a connection of its own.
    pub(crate) fn send(&self, request: &[u8]) -> Answer {
        let mut caller = self.connect();
        // An early answer may close while we still write; the answer is what counts.
        let _ = caller.write_all(request);
        caller.answer()
    }

    /// A POST with a body, on a connection of its own.
    pub(crate) fn post(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.send(&post(path, headers, body))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
    }
}

/// A POST as raw bytes; `headers` are whole lines, each with its CRLF.
pub(crate) fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

impl Caller {
    /// Reads one answer, skipping `100 Continue`. Panics when none comes.
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().unwrap()
    }

    pub(crate) fn try_answer(&mut self) -> io::Result<Answer> {
        loop {
            let head = self.read_head()?;
            let mut lines = head.split("\r\n");
            let status_line = lines.next().unwrap_or_default();
            let status = status_line
                .split(' ')
                .nth(1)
                .and_then(|code| code.parse().ok());
            let status: u16 = status
                .ok_or_else(|| io::Error::other(format!("no status line: {status_line:?}")))?;
            if status == 100 {
                continue;
            }
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let mut answer = Answer {
                status,
                headers,
                body: Vec::new(),
            };
            let length: usize = answer
                .header("content-length")
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
            answer.body = vec![0; length];
            self.read_exact(&mut answer.body)?;
            return Ok(answer);
        }
    }

    /// Reads byte by byte, so that nothing of a next answer is taken.
    fn read_head(&mut self) -> io::Result<String> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if self.read(&mut byte)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            head.push(byte[0]);
        }
        head.truncate(head.len() - 4);
        String::from_utf8(head).map_err(io::Error::other)
    }

    /// Closes the sending half only.
    pub(crate) fn half_close(&self) {
        match self {
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write).unwrap(),
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Write).unwrap(),
        }
    }

    /// Closes with a reset (TCP; a Unix socket knows none, and is just closed).
    pub(crate) fn reset(self) {
        if let Self::Tcp(stream) = self {
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    }

    pub(crate) fn set_read_timeout(&self, timeout: Duration) {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)).unwrap(),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)).unwrap(),
        }
    }
}

impl Read for Caller {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for Caller {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
