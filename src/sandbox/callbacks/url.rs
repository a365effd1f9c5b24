//! Where callbacks go: a loopback address or a unix socket, and the path of the request.
//!
//! Owns the grammar of `--callback-url`. As the sandbox listens on loopback only, so it calls
//! nobody but this machine. Opens nothing.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What a socket path may be long at most; the kernel's bound for `sun_path` and its NUL.
const MAX_SOCKET: usize = 107;
const MAX_PATH: usize = 2_000;

/// A target for callbacks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CallbackUrl {
    pub(super) target: Target,
    /// With a leading `/`.
    pub(super) path: String,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Why a callback URL was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UrlError {
    /// Another machine.
    #[error("the sandbox calls this machine only: 127.0.0.1, [::1], localhost or a unix socket")]
    Loopback,
    /// Neither of the two forms.
    #[error("expected http://127.0.0.1:PORT/PATH or unix:/SOCKET:/PATH")]
    Form,
}

impl CallbackUrl {
    /// An address of this machine and a request path.
    ///
    /// # Errors
    /// Another machine's address, or a path that does not begin with `/` or has more in it than
    /// visible ASCII.
    pub fn tcp(address: SocketAddr, path: &str) -> Result<Self, UrlError> {
        if !address.ip().is_loopback() {
            return Err(UrlError::Loopback);
        }
        Self::new(Target::Tcp(address), path)
    }

    /// A unix socket and a request path.
    ///
    /// # Errors
    /// A socket path that is not absolute or too long for the kernel; a request path as in
    /// [`CallbackUrl::tcp`].
    pub fn unix(socket: &Path, path: &str) -> Result<Self, UrlError> {
        if !socket.is_absolute() || socket.as_os_str().len() > MAX_SOCKET {
            return Err(UrlError::Form);
        }
        Self::new(Target::Unix(socket.to_owned()), path)
    }

    fn new(target: Target, path: &str) -> Result<Self, UrlError> {
        let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        if !path.starts_with('/') || path.len() > MAX_PATH || !path.bytes().all(visible) {
            return Err(UrlError::Form);
        }
        Ok(Self {
            target,
            path: path.to_owned(),
        })
    }

    /// The value of `Host`.
    pub(super) fn host(&self) -> String {
        match &self.target {
            Target::Tcp(address) => address.to_string(),
            Target::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Tcp(address) => write!(f, "http://{address}{}", self.path),
            Target::Unix(socket) => write!(f, "unix:{}:{}", socket.display(), self.path),
        }
    }
}

impl FromStr for CallbackUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if let Some(rest) = text.strip_prefix("unix:") {
            // The first `:/`: a request path may hold another, a socket's path seldom does.
            let (socket, path) = rest.split_once(":/").ok_or(UrlError::Form)?;
            return Self::unix(Path::new(socket), &format!("/{path}"));
        }
        let rest = text.strip_prefix("http://").ok_or(UrlError::Form)?;
        let (authority, path) = rest.split_once('/').ok_or(UrlError::Form)?;
        let path = format!("/{path}");
        if let Some(port) = authority.strip_prefix("localhost:") {
            let port = port.parse().map_err(|_| UrlError::Form)?;
            return Self::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &path);
        }
        let address = authority.parse().map_err(|_| {
            // A name would have to be looked up, and would lead away from here.
            match authority.rsplit_once(':') {
                Some((_, port)) if port.parse::<u16>().is_ok() => UrlError::Loopback,
                _ => UrlError::Form,
            }
        })?;
        Self::tcp(address, &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_written_as_they_are_read() {
        for url in [
            "http://127.0.0.1:9181/bank/priorbank/callback",
            "http://[::1]:1/",
            "http://127.0.0.1:9181/cb?x=1:/2",
            "unix:/run/priorgate/callback.sock:/bank/priorbank/callback",
        ] {
            assert_eq!(url.parse::<CallbackUrl>().unwrap().to_string(), url);
        }
        let named: CallbackUrl = "http://localhost:80/cb".parse().unwrap();
        assert_eq!(named.host(), "127.0.0.1:80");
    }

    #[test]
    fn other_machines_and_other_forms_are_refused() {
        for (url, error) in [
            ("http://192.0.2.1:80/cb", UrlError::Loopback),
            ("http://shop.example:80/cb", UrlError::Loopback),
            ("http://0.0.0.0:80/cb", UrlError::Loopback),
            ("https://127.0.0.1:80/cb", UrlError::Form),
            ("http://127.0.0.1/cb", UrlError::Form),
            ("http://127.0.0.1:80", UrlError::Form),
            ("http://127.0.0.1:80/a b", UrlError::Form),
            ("http://127.0.0.1:80/a\r\nX: 1", UrlError::Form),
            ("unix:run/x.sock:/cb", UrlError::Form),
            ("unix:/run/x.sock", UrlError::Form),
            ("", UrlError::Form),
        ] {
            assert_eq!(url.parse::<CallbackUrl>(), Err(error), "{url}");
        }
    }
}
