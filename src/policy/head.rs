//! The raw head of an HTTP/1 request: is its framing beyond doubt?
//!
//! An HTTP library normalises what it reads: it takes a bare line feed for a line end, merges
//! repeated fields, prefers one length to another. Where two readers of the same bytes may differ,
//! one of them sees a request that the other did not. So the bytes are judged here first, and only
//! a head that every reader understands in the same way goes on.
//!
//! This module knows bytes and limits. It must not know sockets, clocks, routes or callers, and it
//! decides nothing about the meaning of a field: that is `policy::headers`.

use std::ops::Range;

/// The longest method that is read. The longest registered one has 17 bytes.
const MAX_METHOD: usize = 32;

/// The longest target and field name. The HTTP library has limits of its own a little above
/// (65,534) and would answer by itself there; these keep any [`Rules`] below them.
const MAX_TARGET: usize = 32 * 1024;
const MAX_NAME: usize = 256;

/// The most digits of a length: every number of 19 digits fits 64 bits.
const MAX_LENGTH_DIGITS: usize = 19;

/// How large a head may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// Bytes from the first byte of the request line to the end of the empty line.
    pub max_bytes: usize,
    /// Field lines. The HTTP library behind must be told the same number.
    pub max_headers: usize,
}

/// What is known about the bytes so far. Nothing but [`Verdict::Accept`] may go on.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum Verdict {
    /// A whole head that has one meaning.
    Accept(Accepted),
    /// Nothing wrong yet, and the end has not arrived.
    Incomplete,
    /// No further byte can make this head acceptable.
    Refuse(Refusal),
}

/// Where things are in an accepted head.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Accepted {
    /// Bytes of the head, the empty line included. The body starts here.
    pub head_len: usize,
    /// Bytes of the body; 0 without a `Content-Length` (RFC 9112, 6.3).
    pub content_length: u64,
    /// Where the method is.
    pub method: Range<usize>,
    /// Where the target is.
    pub target: Range<usize>,
    /// HTTP/1.0 rather than HTTP/1.1.
    pub http10: bool,
    /// A field `Upgrade` is there: see [`mask_upgrade`].
    pub upgrade: bool,
}

/// Why a head goes no further. If it has several faults, the one named first here decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Against the grammar, or readable in two ways (400).
    Malformed(Reason),
    /// More bytes or more fields than the rules allow (431).
    TooLarge,
    /// A `Transfer-Encoding`: the body must come with a length (411).
    LengthRequired,
}

/// What was wrong with a malformed head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// A CR that no LF follows (RFC 9112, 2.2).
    BareCarriageReturn,
    /// A LF that follows no CR. A recipient may take it for a line end (RFC 9112, 2.2); this one
    /// does not, because not every recipient does.
    BareLineFeed,
    /// `CONNECT`, whose only form of target is an authority (RFC 9112, 3.2.3).
    Connect,
    /// A NUL or another control character (RFC 9110, 5.5; RFC 9112, 3).
    Control,
    /// `Content-Length` twice, even if both agree (RFC 9112, 6.3, leaves the choice).
    ContentLengthRepeated,
    /// `Content-Length` is not plain digits (RFC 9110, 8.6): a list, a sign, a leading zero or more
    /// digits than fit.
    ContentLengthValue,
    /// An empty line before the request line. It should be ignored (RFC 9112, 2.2), but a caller
    /// that sends one has counted its last body wrong.
    EmptyFirstLine,
    /// A field line without a colon (RFC 9112, 5).
    FieldLine,
    /// A field name that is no token; white space before the colon is the usual case (RFC 9110,
    /// 5.1; RFC 9112, 5.1).
    FieldName,
    /// A line that starts with white space: obsolete folding (RFC 9112, 5.2), or white space after
    /// the request line (RFC 9112, 2.2).
    Folding,
    /// A fragment in the target, which belongs to no form of it (RFC 9112, 3.2; RFC 3986, 3.5).
    Fragment,
    /// No `Host` (RFC 9112, 3.2; asked of HTTP/1.0 too).
    HostMissing,
    /// More than one `Host` (RFC 9112, 3.2).
    HostRepeated,
    /// `Host` is empty or no `host[:port]` (RFC 9110, 7.2; RFC 3986, 3.2.2).
    HostValue,
    /// The method is no token, or longer than any known one (RFC 9110, 9.1).
    Method,
    /// A `%` that no two hexadecimal digits follow (RFC 3986, 2.1).
    PercentEncoding,
    /// Not method, one space, target, one space, version (RFC 9112, 3).
    RequestLine,
    /// A target that is no path: absolute, authority and asterisk forms (RFC 9112, 3.2).
    Target,
    /// A byte in the target that belongs in no path or query (RFC 3986, 3.3 and 3.4).
    TargetCharacter,
    /// `Transfer-Encoding` and `Content-Length` in one head: the classic of request smuggling (RFC
    /// 9112, 6.1 and 6.3).
    TwoLengths,
    /// Neither `HTTP/1.1` nor `HTTP/1.0` (RFC 9112, 2.3).
    Version,
}

impl Reason {
    /// The fault in plain words, for the person who wrote the client.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BareCarriageReturn => "a carriage return without a line feed",
            Self::BareLineFeed => "a line feed without a carriage return",
            Self::Connect => "CONNECT is not served here",
            Self::Control => "a control character in the head",
            Self::ContentLengthRepeated => "more than one Content-Length",
            Self::ContentLengthValue => "Content-Length is not one plain decimal number",
            Self::EmptyFirstLine => "an empty line before the request line",
            Self::FieldLine => "a header line without a colon",
            Self::FieldName => {
                "a header name with a character that is not allowed, or a space before its colon"
            }
            Self::Folding => "a header line that starts with white space",
            Self::Fragment => "a fragment (#) in the request target",
            Self::HostMissing => "no Host header",
            Self::HostRepeated => "more than one Host header",
            Self::HostValue => "the Host header is not host or host:port",
            Self::Method => "the method is not a token of at most 32 characters",
            Self::PercentEncoding => "a % in the request target without two hexadecimal digits",
            Self::RequestLine => "the request line is not method, space, target, space, version",
            Self::Target => "the request target is not a path that starts with /",
            Self::TwoLengths => "both Transfer-Encoding and Content-Length",
            Self::TargetCharacter => {
                "a character in the request target that must be percent-encoded"
            }
            Self::Version => "the version is neither HTTP/1.1 nor HTTP/1.0",
        }
    }
}

/// Judges a head in one go: [`Scanner`] for bytes that are all there.
pub fn judge(bytes: &[u8], rules: &Rules) -> Verdict {
    Scanner::default().scan(bytes, rules)
}

/// Judges a head while it arrives, looking at each byte once however small the pieces are.
///
/// A line is judged when it is complete, a byte that is wrong everywhere as soon as it is seen. The
/// verdict depends on the bytes alone, never on how they were cut.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    /// Up to here every byte was looked at.
    seen: usize,
    /// Where the line that is not complete yet starts.
    line: usize,
    /// `None` until the first line is complete.
    request_line: Option<RequestLine>,
    fields: usize,
    host: bool,
    content_length: Option<u64>,
    transfer_encoding: bool,
    upgrade: bool,
    too_large: bool,
}

#[derive(Clone, Copy, Debug)]
struct RequestLine {
    method_len: usize,
    target_len: usize,
    http10: bool,
}

impl Scanner {
    /// Judges what has arrived: `bytes` is the head from its first byte on, at each call the same
    /// bytes as at the last one or more. After a verdict other than [`Verdict::Incomplete`] the
    /// scanner is used up; the next head wants a new one.
    pub fn scan(&mut self, bytes: &[u8], rules: &Rules) -> Verdict {
        // Bytes beyond the limit are not looked at: they can belong to no head that is accepted.
        let window = bytes.get(..rules.max_bytes).unwrap_or(bytes);
        while let Some(rest) = window.get(self.seen..)
            && let Some(at) = rest.iter().position(|byte| !is_text(*byte))
        {
            match (rest.get(at), rest.get(at + 1)) {
                (Some(b'\r'), Some(b'\n')) => {
                    let end = self.seen + at;
                    let line = window.get(self.line..end).unwrap_or_default();
                    self.seen = end + 2;
                    self.line = self.seen;
                    match self.end_of_line(line, rules) {
                        Ok(None) => {}
                        Ok(Some(accepted)) => return Verdict::Accept(accepted),
                        Err(refusal) => return Verdict::Refuse(refusal),
                    }
                }
                (Some(b'\r'), None) => {
                    self.seen += at;
                    return self.incomplete(window, rules);
                }
                (Some(b'\r'), Some(_)) => return malformed(Reason::BareCarriageReturn),
                (Some(b'\n'), _) => return malformed(Reason::BareLineFeed),
                _ => return malformed(Reason::Control),
            }
        }
        self.seen = window.len();
        self.incomplete(window, rules)
    }

    fn incomplete(&self, window: &[u8], rules: &Rules) -> Verdict {
        if window.len() < rules.max_bytes {
            Verdict::Incomplete
        } else {
            Verdict::Refuse(Refusal::TooLarge)
        }
    }

    /// Judges a line without its CRLF. The empty one ends the head.
    fn end_of_line(&mut self, line: &[u8], rules: &Rules) -> Result<Option<Accepted>, Refusal> {
        let Some(request_line) = self.request_line else {
            let parsed = RequestLine::parse(line).map_err(Refusal::Malformed)?;
            self.too_large |= parsed.target_len > MAX_TARGET;
            self.request_line = Some(parsed);
            return Ok(None);
        };
        if line.is_empty() {
            return self.end_of_head(request_line).map(Some);
        }
        self.fields += 1;
        self.too_large |= self.fields > rules.max_headers;
        self.field(line).map_err(Refusal::Malformed)?;
        Ok(None)
    }

    fn end_of_head(&self, line: RequestLine) -> Result<Accepted, Refusal> {
        if !self.host {
            return Err(Refusal::Malformed(Reason::HostMissing));
        }
        if self.too_large {
            return Err(Refusal::TooLarge);
        }
        if self.transfer_encoding && self.content_length.is_some() {
            return Err(Refusal::Malformed(Reason::TwoLengths));
        }
        if self.transfer_encoding {
            return Err(Refusal::LengthRequired);
        }
        let target = line.method_len + 1;
        Ok(Accepted {
            head_len: self.seen,
            content_length: self.content_length.unwrap_or(0),
            method: 0..line.method_len,
            target: target..target + line.target_len,
            http10: line.http10,
            upgrade: self.upgrade,
        })
    }

    /// Judges a field line and keeps what the framing needs of it.
    fn field(&mut self, line: &[u8]) -> Result<(), Reason> {
        if let Some(b' ' | b'\t') = line.first() {
            return Err(Reason::Folding);
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = colon
            .and_then(|at| line.split_at_checked(at))
            .ok_or(Reason::FieldLine)?;
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(Reason::FieldName);
        }
        self.too_large |= name.len() > MAX_NAME;
        let value = trim(value.get(1..).unwrap_or_default());
        // The length first: it spares almost every field the comparison.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.host {
                    return Err(Reason::HostRepeated);
                }
                if !is_host(value) {
                    return Err(Reason::HostValue);
                }
                self.host = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.content_length.is_some() {
                    return Err(Reason::ContentLengthRepeated);
                }
                self.content_length = Some(length(value).ok_or(Reason::ContentLengthValue)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding = true,
            _ => {}
        }
        Ok(())
    }
}

impl RequestLine {
    fn parse(line: &[u8]) -> Result<Self, Reason> {
        if line.is_empty() {
            return Err(Reason::EmptyFirstLine);
        }
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Reason::RequestLine);
        };
        if target.is_empty() {
            return Err(Reason::RequestLine);
        }
        if method.is_empty() || method.len() > MAX_METHOD || !method.iter().copied().all(is_token) {
            return Err(Reason::Method);
        }
        if method == b"CONNECT" {
            return Err(Reason::Connect);
        }
        check_target(target)?;
        let http10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Reason::Version),
        };
        Ok(Self {
            method_len: method.len(),
            target_len: target.len(),
            http10,
        })
    }
}

/// Renames every field `Upgrade` of an accepted head to `Ignored`, in place.
///
/// No upgrade is ever made here, and a server may ignore the field (RFC 9110, 7.8). The HTTP
/// library does not: on a connection that once asked for an upgrade it ends without a proper
/// shutdown, and a caller that was still sending gets a reset in place of its answer.
pub fn mask_upgrade(head: &mut [u8]) {
    for line in head.split_mut(|byte| *byte == b'\n') {
        if let Some((name, rest)) = line.split_at_mut_checked(7)
            && rest.first() == Some(&b':')
            && name.eq_ignore_ascii_case(b"upgrade")
        {
            name.copy_from_slice(b"Ignored");
        }
    }
}

fn malformed(reason: Reason) -> Verdict {
    Verdict::Refuse(Refusal::Malformed(reason))
}

/// Origin form only: what a path and a query are made of (RFC 9112, 3.2.1).
fn check_target(target: &[u8]) -> Result<(), Reason> {
    if target.first() != Some(&b'/') {
        return Err(Reason::Target);
    }
    let mut bytes = target.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                for _ in 0..2 {
                    if !bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit()) {
                        return Err(Reason::PercentEncoding);
                    }
                }
            }
            b'#' => return Err(Reason::Fragment),
            _ if is_target(byte) => {}
            _ => return Err(Reason::TargetCharacter),
        }
    }
    Ok(())
}

/// Plain digits without a leading zero, which some readers take for octal.
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty()
        || value.len() > MAX_LENGTH_DIGITS
        || (value.len() > 1 && value.first() == Some(&b'0'))
    {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// `name`, `1.2.3.4` or `[::1]`, with or without `:port`.
fn is_host(value: &[u8]) -> bool {
    let (host, port) = if let Some(literal) = value.strip_prefix(b"[") {
        let Some(end) = literal.iter().position(|byte| *byte == b']') else {
            return false;
        };
        let (address, rest) = literal.split_at(end);
        let of_address = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
        if !address.iter().all(of_address) {
            return false;
        }
        (address, rest.get(1..).unwrap_or_default())
    } else {
        let end = value
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(value.len());
        let (name, rest) = value.split_at(end);
        let of_name =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if !name.iter().all(of_name) {
            return false;
        }
        (name, rest)
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => {
            matches!(digits.len(), 1..=5) && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    !host.is_empty() && port_fits
}

/// Without the optional white space around it (RFC 9110, 5.6.3), which is SP and HTAB only.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// What may stand in a line at all: VCHAR, SP, HTAB and obs-text (RFC 9110, 5.5).
const fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// `tchar` (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte)
}

/// `pchar`, `/` and `?`, without `%`, which is looked at with what follows it (RFC 3986, 3.3, 3.4).
fn is_target(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~?&=:@!$'()*+,;".contains(&byte)
}

#[cfg(test)]
mod tests;
