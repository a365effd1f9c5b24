//! Whose socket is it? The kernel's `sock_diag` question and answer for exactly one TCP connection (sock_diag(7)), as
//! bytes.
//!
//! The question is about the *connecting* socket: its source is the caller's address, its destination ours. Everything
//! that is not a plain yes is a denial with its reason: the kernel says uid 0 and inode 0 for a socket that nobody holds
//! any more (FIN_WAIT2, TIME_WAIT), and may answer with a listener on the same port where the connection is gone.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `nlmsghdr` and `inet_diag_req_v2`.
pub const QUESTION: usize = 72;
/// `nlmsghdr` and `inet_diag_msg`; attributes follow, and say nothing that is asked here.
const ANSWER: usize = 88;
/// `nlmsghdr`.
const HEADER: usize = 16;
/// Of a message whose type is [`NLMSG_ERROR`]: the header and an `i32`.
const ERROR: usize = 20;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_ESTABLISHED: u8 = 1;
/// Whatever the state: a connection that is going away is to be told from one that never was.
const EVERY_STATE: u32 = u32::MAX;
/// `INET_DIAG_NOCOOKIE`, twice.
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// What netlink says of a socket that it cannot find: a number of the kernel's interface, the same on every machine.
const ENOENT: i32 = 2;

/// One connection, seen from its other end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Question {
    /// The caller's end: the socket that is asked about.
    pub caller: SocketAddr,
    /// Our end of the same connection.
    pub ours: SocketAddr,
    /// Tells this question's answer from an earlier one's.
    pub sequence: u32,
}

/// What the kernel's answer is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Verdict {
    /// An established connection whose socket this uid made.
    Caller(u32),
    /// Not provable.
    Denied(Reason),
}

/// Why the caller is not provable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// The kernel knows no such socket: closed, or of another network namespace.
    NoSocket,
    /// It is going away, or a listener answered in its place.
    NotEstablished,
    /// No process holds it.
    NoOwner,
    /// The answer speaks of another connection.
    OtherSocket,
    /// An answer to another question.
    OtherQuestion,
    /// Not an answer as sock_diag(7) has it.
    Malformed,
    /// The kernel refused the question, with this error number.
    Refused(i32),
    /// No answer came in time, or the socket towards the kernel failed.
    NoAnswer,
}

impl Reason {
    /// A word for records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSocket => "no_socket",
            Self::NotEstablished => "not_established",
            Self::NoOwner => "no_owner",
            Self::OtherSocket => "other_socket",
            Self::OtherQuestion => "other_question",
            Self::Malformed => "malformed",
            Self::Refused(_) => "refused",
            Self::NoAnswer => "no_answer",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSocket => f.write_str("the kernel knows no such socket"),
            Self::NotEstablished => f.write_str("the connection is not established"),
            Self::NoOwner => f.write_str("no process holds the socket"),
            Self::OtherSocket => f.write_str("the kernel answered for another socket"),
            Self::OtherQuestion => f.write_str("the kernel answered another question"),
            Self::Malformed => f.write_str("the kernel's answer was not understood"),
            Self::Refused(errno) => write!(f, "the kernel refused the question (error {errno})"),
            Self::NoAnswer => f.write_str("the kernel gave no answer"),
        }
    }
}

impl Question {
    /// The message for the kernel.
    #[must_use]
    pub fn encode(&self) -> [u8; QUESTION] {
        let (caller, ours) = (
            self.caller.ip().to_canonical(),
            self.ours.ip().to_canonical(),
        );
        let family = if caller.is_ipv4() { AF_INET } else { AF_INET6 };
        let mut bytes = Writer::default();
        // nlmsghdr: length, type, flags, sequence, port; the kernel's own order of bytes.
        bytes.put(&(QUESTION as u32).to_ne_bytes());
        bytes.put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes.put(&NLM_F_REQUEST.to_ne_bytes());
        bytes.put(&self.sequence.to_ne_bytes());
        bytes.put(&0_u32.to_ne_bytes());
        // inet_diag_req_v2: family, protocol, no extensions, padding, states.
        bytes.put(&[family, IPPROTO_TCP, 0, 0]);
        bytes.put(&EVERY_STATE.to_ne_bytes());
        // inet_diag_sockid: ports and addresses in the network's order, any interface, no cookie.
        bytes.put(&self.caller.port().to_be_bytes());
        bytes.put(&self.ours.port().to_be_bytes());
        bytes.put(&sixteen(caller));
        bytes.put(&sixteen(ours));
        bytes.put(&0_u32.to_ne_bytes());
        bytes.put(&NO_COOKIE);
        bytes.bytes
    }

    /// Judges one datagram of the kernel. Fails closed: whatever is not this question's answer, whole and alone, is a
    /// denial.
    pub fn judge(&self, answer: &[u8]) -> Verdict {
        match self.owner(answer) {
            Ok(uid) => Verdict::Caller(uid),
            Err(reason) => Verdict::Denied(reason),
        }
    }

    fn owner(&self, answer: &[u8]) -> Result<u32, Reason> {
        let mut reader = Reader(answer);
        let length = reader.u32()?;
        let kind = reader.u16()?;
        let _flags = reader.u16()?;
        let sequence = reader.u32()?;
        let _port = reader.u32()?;
        // One message, and all of it: netlink pads to four bytes.
        if usize::try_from(length) != Ok(answer.len()) || answer.len() < HEADER {
            return Err(Reason::Malformed);
        }
        if sequence != self.sequence {
            return Err(Reason::OtherQuestion);
        }
        if kind == NLMSG_ERROR && answer.len() >= ERROR {
            return Err(match reader.i32()?.saturating_neg() {
                ENOENT => Reason::NoSocket,
                errno => Reason::Refused(errno),
            });
        }
        if kind != SOCK_DIAG_BY_FAMILY || answer.len() < ANSWER {
            return Err(Reason::Malformed);
        }
        let [family, state, _timer, _retransmits] = reader.take()?;
        let caller_port = u16::from_be_bytes(reader.take()?);
        let our_port = u16::from_be_bytes(reader.take()?);
        let caller = address(family, reader.take()?)?;
        let ours = address(family, reader.take()?)?;
        let _interface = reader.u32()?;
        let _cookie: [u8; 8] = reader.take()?;
        let (_expires, _received, _sent) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (uid, inode) = (reader.u32()?, reader.u32()?);
        let same = (caller, caller_port) == canonical(self.caller)
            && (ours, our_port) == canonical(self.ours);
        // The state before the addresses: a listener in the connection's place has others.
        if state != TCP_ESTABLISHED {
            return Err(Reason::NotEstablished);
        }
        if !same {
            return Err(Reason::OtherSocket);
        }
        if inode == 0 {
            return Err(Reason::NoOwner);
        }
        Ok(uid)
    }
}

fn canonical(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// A program may call 127.0.0.1 from an IPv6 socket (`::ffff:127.0.0.1`): the same connection.
fn address(family: u8, bytes: [u8; 16]) -> Result<IpAddr, Reason> {
    match family {
        AF_INET => {
            let [a, b, c, d, ..] = bytes;
            Ok(Ipv4Addr::new(a, b, c, d).into())
        }
        AF_INET6 => Ok(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()),
        _ => Err(Reason::Malformed),
    }
}

/// An address in the sixteen bytes that hold either.
fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

struct Writer {
    bytes: [u8; QUESTION],
    at: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            bytes: [0; QUESTION],
            at: 0,
        }
    }
}

impl Writer {
    fn put(&mut self, part: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(self.at).zip(part) {
            *place = *byte;
        }
        self.at = self.at.saturating_add(part.len());
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Reason::Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u32(&mut self) -> Result<u32, Reason> {
        self.take().map(u32::from_ne_bytes)
    }

    fn i32(&mut self) -> Result<i32, Reason> {
        self.take().map(i32::from_ne_bytes)
    }

    fn u16(&mut self) -> Result<u16, Reason> {
        self.take().map(u16::from_ne_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(caller: &str, ours: &str) -> Question {
        Question {
            caller: caller.parse().unwrap(),
            ours: ours.parse().unwrap(),
            sequence: 7,
        }
    }

    fn v4() -> Question {
        question("127.0.0.1:40000", "127.0.0.1:9180")
    }

    /// The kernel's answer: the question's own addresses, an attribute of eight bytes after it.
    fn answer(question: &Question, state: u8, uid: u32, inode: u32) -> Vec<u8> {
        let asked = question.encode();
        let mut bytes = Vec::new();
        bytes.extend(96_u32.to_ne_bytes());
        bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes.extend(0_u16.to_ne_bytes());
        bytes.extend(question.sequence.to_ne_bytes());
        bytes.extend(4711_u32.to_ne_bytes());
        bytes.extend([asked[16], state, 0, 0]);
        bytes.extend(&asked[24..64]);
        bytes.extend([9; 8]);
        bytes.extend([0; 12]);
        bytes.extend(uid.to_ne_bytes());
        bytes.extend(inode.to_ne_bytes());
        bytes.extend([5, 0, 8, 0, 0, 0, 0, 0]);
        bytes
    }

    fn denied(question: &Question, answer: &[u8]) -> Reason {
        match question.judge(answer) {
            Verdict::Denied(reason) => reason,
            Verdict::Caller(uid) => panic!("uid {uid}"),
        }
    }

    #[test]
    fn an_established_socket_that_somebody_holds_says_whose_it_is() {
        for question in [v4(), question("[::1]:40000", "[::1]:9180")] {
            for uid in [0, 33, 65534] {
                let answer = answer(&question, 1, uid, 12);
                assert_eq!(question.judge(&answer), Verdict::Caller(uid));
            }
        }
    }

    #[test]
    fn a_socket_that_is_going_away_says_nothing() {
        for state in (0..=u8::MAX).filter(|state| *state != 1) {
            let answer = answer(&v4(), state, 33, 12);
            assert_eq!(denied(&v4(), &answer), Reason::NotEstablished);
        }
        assert_eq!(denied(&v4(), &answer(&v4(), 1, 0, 0)), Reason::NoOwner);
    }

    #[test]
    fn an_answer_about_another_connection_says_nothing() {
        for other in [
            question("127.0.0.1:40001", "127.0.0.1:9180"),
            question("127.0.0.1:40000", "127.0.0.1:9181"),
            question("127.0.0.2:40000", "127.0.0.1:9180"),
            question("127.0.0.1:40000", "127.0.0.2:9180"),
            question("[::1]:40000", "[::1]:9180"),
        ] {
            let answer = answer(&other, 1, 33, 12);
            assert_eq!(denied(&v4(), &answer), Reason::OtherSocket, "{other:?}");
        }
    }

    #[test]
    fn an_ipv4_connection_of_an_ipv6_socket_is_the_same_connection() {
        let mapped = question("[::ffff:127.0.0.1]:40000", "[::ffff:127.0.0.1]:9180");
        assert_eq!(mapped.encode(), v4().encode());
        let mut told = answer(&v4(), 1, 33, 12);
        told[16] = AF_INET6;
        for at in [24, 40] {
            told[at..at + 16].copy_from_slice(&Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
        }
        assert_eq!(v4().judge(&told), Verdict::Caller(33));
        assert_eq!(mapped.judge(&told), Verdict::Caller(33));
    }

    #[test]
    fn a_late_answer_is_not_taken_for_this_ones() {
        let earlier = Question {
            sequence: 6,
            ..v4()
        };
        let told = answer(&earlier, 1, 33, 12);
        assert_eq!(denied(&v4(), &told), Reason::OtherQuestion);
    }

    #[test]
    fn errors_are_denials() {
        let error = |errno: i32| {
            let mut told = answer(&v4(), 1, 33, 12)[..36].to_vec();
            told[..4].copy_from_slice(&36_u32.to_ne_bytes());
            told[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
            told[16..20].copy_from_slice(&(-errno).to_ne_bytes());
            denied(&v4(), &told)
        };
        assert_eq!(error(2), Reason::NoSocket);
        assert_eq!(error(13), Reason::Refused(13));
    }

    #[test]
    fn a_short_a_long_and_a_second_message_are_denials() {
        let whole = answer(&v4(), 1, 33, 12);
        for end in 0..whole.len() {
            let mut cut = whole[..end].to_vec();
            assert_eq!(denied(&v4(), &cut), Reason::Malformed, "{end}");
            if end >= 4 {
                // Even if its length says that this is all.
                cut[..4].copy_from_slice(&u32::try_from(end).unwrap().to_ne_bytes());
                let expected = end < ANSWER;
                assert_eq!(v4().judge(&cut) != Verdict::Caller(33), expected, "{end}");
            }
        }
        let twice = [whole.as_slice(), whole.as_slice()].concat();
        assert_eq!(denied(&v4(), &twice), Reason::Malformed);
    }
}
