//! A bank's `url`: an origin and nothing more.
//!
//! Read by hand, because a URL parser is kind where a bank's address must be exact: it takes `:99999` and `:x` for
//! no port at all, and the request would go to 443.

use std::net::Ipv6Addr;

use rustls::pki_types::ServerName;

use super::Remote;

/// A scheme, a host and a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    /// Whether it is `http://`.
    pub plain: bool,
    /// The host and the port.
    pub remote: Remote,
}

/// Why a text is no origin. Never a part of it: there may be a password inside.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OriginError {
    /// `user:password@`.
    #[error("holds a user or a password, which would end in logs and process lists")]
    Credentials,
    /// Not a name, not an address.
    #[error(
        "expected a DNS name or an IP address (IPv6 in brackets) as the host, as in https://api.bank.example"
    )]
    Host,
    /// A path, a query or a fragment.
    #[error(
        "expected an origin such as https://api.bank.example:9345, without path, query or fragment"
    )]
    NotOnlyOrigin,
    /// Not a port.
    #[error("expected a port from 1 to 65535 after the colon, as in https://api.bank.example:9345")]
    Port,
    /// Neither `https://` nor `http://`.
    #[error("expected an origin that starts with https://, such as https://api.bank.example")]
    Scheme,
}

impl Origin {
    /// Reads `https://host[:port]` or `http://host[:port]`; one `/` may end it.
    ///
    /// # Errors
    /// [`OriginError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let (scheme, rest) = text.split_once("://").ok_or(OriginError::Scheme)?;
        let plain = match scheme.to_ascii_lowercase().as_str() {
            "https" => false,
            "http" => true,
            _ => return Err(OriginError::Scheme),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        // Before anything else: whatever else is wrong with it, this is what must be changed.
        if authority
            .split(['/', '?', '#'])
            .next()
            .is_some_and(|authority| authority.contains('@'))
        {
            return Err(OriginError::Credentials);
        }
        if authority.contains(['/', '?', '#']) {
            return Err(OriginError::NotOnlyOrigin);
        }
        let (host, port) = split(authority)?;
        let default = if plain { 80 } else { 443 };
        let port = port.map_or(Ok(default), parse_port)?;
        let mut authority = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        if port != default {
            authority = format!("{authority}:{port}");
        }
        let remote = Remote {
            host: host.to_owned(),
            port,
            authority,
        };
        Ok(Self { plain, remote })
    }
}

/// The host without brackets, and what stands after its colon.
fn split(authority: &str) -> Result<(&str, Option<&str>), OriginError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(OriginError::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| OriginError::Host)?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(OriginError::Host),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if ServerName::try_from(host).is_err() {
        return Err(OriginError::Host);
    }
    Ok((host, port))
}

fn parse_port(text: &str) -> Result<u16, OriginError> {
    // Digits only: `parse` alone would take a sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(OriginError::Port);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(OriginError::Port),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (bool, String, u16, String) {
        let Origin { plain, remote } = Origin::parse(text).unwrap();
        (plain, remote.host, remote.port, remote.authority)
    }

    #[test]
    fn an_origin_is_read_and_the_schemes_own_port_is_not_shown() {
        let bank = "api.bank.example".to_owned();
        let secure = (false, bank.clone(), 443, bank.clone());
        assert_eq!(read("https://api.bank.example"), secure);
        assert_eq!(read("HTTPS://api.bank.example:443/"), secure);
        let other = (false, bank.clone(), 9345, format!("{bank}:9345"));
        assert_eq!(read("https://api.bank.example:9345"), other);
        let six = (true, "::1".to_owned(), 8080, "[::1]:8080".to_owned());
        assert_eq!(read("http://[::1]:8080"), six);
        let four = (true, "127.0.0.1".to_owned(), 80, "127.0.0.1".to_owned());
        assert_eq!(read("http://127.0.0.1"), four);
    }

    #[test]
    fn a_port_that_is_none_never_becomes_the_default() {
        for port in ["", "0", "65536", "99999", "x", "+443", "-1", "443 ", "4:4"] {
            let text = format!("https://api.bank.example:{port}");
            assert_eq!(Origin::parse(&text), Err(OriginError::Port), "{text}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for (text, error) in [
            ("", OriginError::Scheme),
            ("api.bank.example", OriginError::Scheme),
            ("ftp://api.bank.example", OriginError::Scheme),
            ("https://", OriginError::Host),
            ("https:///", OriginError::Host),
            ("https://[::1", OriginError::Host),
            ("https://[::1]x", OriginError::Host),
            ("https://[fe80::1%25eth0]", OriginError::Host),
            ("https://::1", OriginError::Host),
            ("https://1.2.3.400", OriginError::Host),
            ("https://api.bank.example ", OriginError::Host),
            ("https://u:p@api.bank.example/x", OriginError::Credentials),
            ("https://api.bank.example//", OriginError::NotOnlyOrigin),
            ("https://api.bank.example/v1", OriginError::NotOnlyOrigin),
            ("https://api.bank.example?", OriginError::NotOnlyOrigin),
            ("https://api.bank.example/#", OriginError::NotOnlyOrigin),
        ] {
            assert_eq!(Origin::parse(text), Err(error), "{text}");
        }
    }
}
