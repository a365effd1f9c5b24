//! What the gate and the keyholder say to each other: one packet, one message, each with the id of its question.
//!
//! It owns the bytes. Decoding is strict: a packet is exactly one message of this version, or nothing. The socket is
//! `SOCK_SEQPACKET`, so that a packet is never read in halves and nothing has to be framed.
//!
//! Both sides are of one build, but an upgrade replaces them one after the other: hence the version.

use std::time::Duration;

use super::signing::{MESSAGE_MAX, Refusal, SCHEMES};

/// Of this layout. A packet of another one is not understood.
const VERSION: u8 = 1;
/// Version, kind, id.
const HEAD: usize = 10;
/// A whole message with its head, the hash of a key and a scheme.
pub const PACKET_MAX: usize = HEAD + 34 + MESSAGE_MAX;
/// A configuration has a handful of banks; so many keys fit into one packet many times over.
pub const KEYS_MAX: usize = 256;
/// RSA of 8192 bits signs 1024 bytes; ECDSA in DER far fewer.
const SIGNATURE_MAX: usize = 1024;
/// Enough for a path and a reason; cut at a character.
const REASON_MAX: usize = 1024;

/// SHA-256 of a SubjectPublicKeyInfo: which key is meant.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyId(pub [u8; 32]);

/// What the gate asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request<'a> {
    /// To sign a checkpoint of the audit log over its sequence and head hash.
    Checkpoint {
        /// The last record's number.
        sequence: u64,
        /// The last record's hash.
        head: [u8; 32],
    },
    /// Which keys there are.
    Keys,
    /// To load the keys again.
    Reload,
    /// To sign a handshake.
    Sign {
        /// With which key.
        key: KeyId,
        /// How: a code of TLS's registry.
        scheme: u16,
        /// The whole message, never a digest.
        message: &'a [u8],
    },
}

/// What the keyholder answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The checkpoint is signed.
    Checkpoint {
        /// The signer's clock, in milliseconds since 1970.
        at: u64,
        /// The signer's count of handshake signatures.
        signatures: u64,
        /// The sequence that it had signed last before this one; 0 for the first.
        before: u64,
        /// And the head.
        before_head: [u8; 32],
        /// Ed25519 over [`super::chain::checkpoint_message`].
        signature: [u8; 64],
    },
    /// No key with that hash: read the certificate again.
    KeyChanged,
    /// The keys that there are.
    Keys {
        /// The signer's process.
        pid: u32,
        /// At most [`KEYS_MAX`].
        keys: Vec<Held>,
    },
    /// The reload is over: nothing, or why the old keys stay.
    Reloaded(Result<(), String>),
    /// Not signed, and asking again would not help.
    Refused(Refused),
    /// Not an answer, and its id is 0: another signer has taken over, and what the last one had read is lost.
    Restarted {
        /// The new signer's process.
        pid: u32,
    },
    /// The signature.
    Signed(Vec<u8>),
    /// Too many signatures: ask again after so many milliseconds.
    Wait(u32),
}

/// A key that the keyholder has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// Which.
    pub key: KeyId,
    /// How it can sign.
    pub schemes: Vec<u16>,
}

/// Why the keyholder did not sign.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The key failed.
    #[error("the key did not sign")]
    Failed,
    /// What was to be signed.
    #[error(transparent)]
    Judged(Refusal),
    /// Its own log takes no line, and it signs nothing in silence.
    #[error("the keyholder's log does not take its line: its stderr is full or closed")]
    Log,
    /// No audit key is configured.
    #[error("the keyholder has no audit key (audit.key_file, audit.key_credential)")]
    NoAuditKey,
    /// The checkpoint is not later than the last one.
    #[error(
        "a checkpoint of this sequence or a later one was signed before: the log was cut back, or is another one under the \
         same name (docs/audit.md: when the signer refuses)"
    )]
    NotLater,
    /// The last checkpoint cannot be read or written, so that none may be signed.
    #[error(
        "the keyholder cannot keep its checkpoint state (docs/audit.md: when the signer refuses)"
    )]
    State,
    /// The checkpoint is further on than a log can have grown.
    #[error("no log can have grown so far since the last checkpoint")]
    TooFar,
    /// It signed just this, and the answer was lost with the signer or its connection: the next one follows on it.
    #[error("the keyholder has signed just this already, and its answer was lost on the way")]
    Again,
}

/// A packet that is no message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a packet of this version of the keyholder's protocol")]
pub struct Malformed;

const CHECKPOINT: u8 = 1;
const KEYS: u8 = 2;
const RELOAD: u8 = 3;
const SIGN: u8 = 4;
const KEY_CHANGED: u8 = 5;
const REFUSED: u8 = 6;
const RESTARTED: u8 = 7;
const WAIT: u8 = 8;
/// What is set in the kind of an answer: a packet that is sent back is not taken for one.
const ANSWER: u8 = 0x80;

/// Bits of [`Refused`] on the wire.
const REFUSALS: [Refused; 10] = [
    Refused::Failed,
    Refused::Judged(Refusal::Message),
    Refused::Judged(Refusal::Scheme),
    Refused::Judged(Refusal::Version),
    Refused::Log,
    Refused::NoAuditKey,
    Refused::NotLater,
    Refused::State,
    Refused::TooFar,
    Refused::Again,
];

impl<'a> Request<'a> {
    /// The packet.
    #[must_use]
    pub fn encode(&self, id: u64) -> Vec<u8> {
        match self {
            Self::Checkpoint { sequence, head } => {
                packet(CHECKPOINT, id, &[&sequence.to_be_bytes(), head])
            }
            Self::Keys => packet(KEYS, id, &[]),
            Self::Reload => packet(RELOAD, id, &[]),
            Self::Sign {
                key,
                scheme,
                message,
            } => packet(SIGN, id, &[&key.0, &scheme.to_be_bytes(), message]),
        }
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(packet: &'a [u8]) -> Result<(u64, Self), Malformed> {
        let (kind, id, mut body) = open(packet)?;
        let request = match kind {
            CHECKPOINT => Self::Checkpoint {
                sequence: u64::from_be_bytes(take(&mut body)?),
                head: take(&mut body)?,
            },
            KEYS => Self::Keys,
            RELOAD => Self::Reload,
            SIGN => Self::Sign {
                key: KeyId(take(&mut body)?),
                scheme: u16::from_be_bytes(take(&mut body)?),
                message: std::mem::take(&mut body),
            },
            _ => return Err(Malformed),
        };
        if body.is_empty() {
            Ok((id, request))
        } else {
            Err(Malformed)
        }
    }
}

impl Answer {
    /// Ask again after this.
    #[must_use]
    pub fn wait(pause: Duration) -> Self {
        let millis = pause.saturating_add(Duration::from_millis(1)).as_millis();
        Self::Wait(u32::try_from(millis).unwrap_or(u32::MAX))
    }

    /// The packet. What is above a bound is cut: nothing that the signer says is.
    #[must_use]
    pub fn encode(&self, id: u64) -> Vec<u8> {
        match self {
            Self::Checkpoint {
                at,
                signatures,
                before,
                before_head,
                signature,
            } => {
                let numbers = [at, signatures, before].map(|number| number.to_be_bytes());
                let parts: [&[u8]; 3] = [numbers.as_flattened(), before_head, signature];
                packet(CHECKPOINT | ANSWER, id, &parts)
            }
            Self::KeyChanged => packet(KEY_CHANGED | ANSWER, id, &[]),
            Self::Keys { pid, keys } => {
                let mut body = pid.to_be_bytes().to_vec();
                for held in keys.iter().take(KEYS_MAX) {
                    body.extend_from_slice(&held.key.0);
                    let schemes = held.schemes.iter().take(SCHEMES.len());
                    // At most ten.
                    body.push(u8::try_from(schemes.len()).unwrap_or(0));
                    body.extend(schemes.flat_map(|scheme| scheme.to_be_bytes()));
                }
                packet(KEYS | ANSWER, id, &[&body])
            }
            Self::Reloaded(Ok(())) => packet(RELOAD | ANSWER, id, &[&[0]]),
            Self::Reloaded(Err(reason)) => {
                let end = (0..=REASON_MAX.min(reason.len()))
                    .rev()
                    .find(|end| reason.is_char_boundary(*end));
                let reason = reason.get(..end.unwrap_or(0)).unwrap_or_default();
                packet(RELOAD | ANSWER, id, &[&[1], reason.as_bytes()])
            }
            Self::Refused(refused) => {
                let place = REFUSALS.iter().position(|each| each == refused);
                let place = u8::try_from(place.unwrap_or(0)).unwrap_or(0);
                packet(REFUSED | ANSWER, id, &[&[place]])
            }
            Self::Restarted { pid } => packet(RESTARTED | ANSWER, id, &[&pid.to_be_bytes()]),
            Self::Signed(signature) => packet(SIGN | ANSWER, id, &[signature]),
            Self::Wait(millis) => packet(WAIT | ANSWER, id, &[&millis.to_be_bytes()]),
        }
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(packet: &[u8]) -> Result<(u64, Self), Malformed> {
        let (kind, id, mut body) = open(packet)?;
        let body = &mut body;
        let answer = match kind ^ ANSWER {
            CHECKPOINT => Self::Checkpoint {
                at: u64::from_be_bytes(take(body)?),
                signatures: u64::from_be_bytes(take(body)?),
                before: u64::from_be_bytes(take(body)?),
                before_head: take(body)?,
                signature: take(body)?,
            },
            KEY_CHANGED => Self::KeyChanged,
            KEYS => {
                let pid = u32::from_be_bytes(take(body)?);
                let mut keys = Vec::new();
                while !body.is_empty() {
                    if keys.len() == KEYS_MAX {
                        return Err(Malformed);
                    }
                    keys.push(held(body)?);
                }
                Self::Keys { pid, keys }
            }
            RELOAD => match take::<1>(body)? {
                [0] => Self::Reloaded(Ok(())),
                [1] if body.len() <= REASON_MAX => {
                    let reason =
                        std::str::from_utf8(std::mem::take(body)).map_err(|_| Malformed)?;
                    Self::Reloaded(Err(reason.to_owned()))
                }
                _ => return Err(Malformed),
            },
            REFUSED => {
                let [place] = take(body)?;
                let refused = REFUSALS.get(usize::from(place)).ok_or(Malformed)?;
                Self::Refused(*refused)
            }
            RESTARTED => Self::Restarted {
                pid: u32::from_be_bytes(take(body)?),
            },
            SIGN if !body.is_empty() && body.len() <= SIGNATURE_MAX => {
                Self::Signed(std::mem::take(body).to_vec())
            }
            WAIT => Self::Wait(u32::from_be_bytes(take(body)?)),
            _ => return Err(Malformed),
        };
        if body.is_empty() {
            Ok((id, answer))
        } else {
            Err(Malformed)
        }
    }
}

fn held(body: &mut &[u8]) -> Result<Held, Malformed> {
    let key = KeyId(take(body)?);
    let [count] = take(body)?;
    if usize::from(count) > SCHEMES.len() {
        return Err(Malformed);
    }
    let schemes = (0..count).map(|_| take(body).map(u16::from_be_bytes));
    Ok(Held {
        key,
        schemes: schemes.collect::<Result<_, _>>()?,
    })
}

fn packet(kind: u8, id: u64, parts: &[&[u8]]) -> Vec<u8> {
    let mut packet = vec![VERSION, kind];
    packet.extend_from_slice(&id.to_be_bytes());
    for part in parts {
        packet.extend_from_slice(part);
    }
    packet
}

fn open(packet: &[u8]) -> Result<(u8, u64, &[u8]), Malformed> {
    let mut rest = packet;
    let [version, kind] = take(&mut rest)?;
    let id = u64::from_be_bytes(take(&mut rest)?);
    if version == VERSION && packet.len() <= PACKET_MAX {
        Ok((kind, id, rest))
    } else {
        Err(Malformed)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    *rest = after;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    use super::*;

    fn key() -> impl Strategy<Value = KeyId> {
        any::<[u8; 32]>().prop_map(KeyId)
    }

    fn answer() -> impl Strategy<Value = Answer> {
        let held = (key(), proptest::collection::vec(any::<u16>(), 0..=10))
            .prop_map(|(key, schemes)| Held { key, schemes });
        prop_oneof![
            (any::<[u64; 3]>(), any::<[u8; 32]>()).prop_map(|([at, signatures, before], half)| {
                let mut signature = [1; 64];
                signature[..32].copy_from_slice(&half);
                Answer::Checkpoint {
                    at,
                    signatures,
                    before,
                    before_head: half,
                    signature,
                }
            }),
            Just(Answer::KeyChanged),
            (any::<u32>(), proptest::collection::vec(held, 0..20))
                .prop_map(|(pid, keys)| Answer::Keys { pid, keys }),
            Just(Answer::Reloaded(Ok(()))),
            ".{0,200}".prop_map(|reason| Answer::Reloaded(Err(reason))),
            (0..REFUSALS.len()).prop_map(|place| Answer::Refused(REFUSALS[place])),
            any::<u32>().prop_map(|pid| Answer::Restarted { pid }),
            proptest::collection::vec(any::<u8>(), 1..=SIGNATURE_MAX).prop_map(Answer::Signed),
            any::<u32>().prop_map(Answer::Wait),
        ]
    }

    proptest! {
        #[test]
        fn a_request_reads_back_as_it_was_written(
            id in any::<u64>(), key in key(), scheme in any::<u16>(), sequence in any::<u64>(),
            message in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let sign = Request::Sign { key, scheme, message: &message };
            let checkpoint = Request::Checkpoint { sequence, head: key.0 };
            for request in [sign, checkpoint, Request::Keys, Request::Reload] {
                let packet = request.encode(id);
                assert_eq!(Request::decode(&packet), Ok((id, request)));
                assert_eq!(Answer::decode(&packet), Err(Malformed));
            }
        }

        #[test]
        fn an_answer_reads_back_as_it_was_written(id in any::<u64>(), answer in answer()) {
            let packet = answer.encode(id);
            assert!(packet.len() <= PACKET_MAX);
            assert_eq!(Request::decode(&packet), Err(Malformed));
            assert_eq!(Answer::decode(&packet), Ok((id, answer)));
        }

        #[test]
        fn what_is_read_is_written_back_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 0_u8..9) {
            for kind in [kind, kind | ANSWER] {
                let packet = [&[VERSION, kind], &bytes[..]].concat();
                if let Ok((id, request)) = Request::decode(&packet) {
                    assert_eq!(request.encode(id), packet);
                }
                if let Ok((id, answer)) = Answer::decode(&packet) {
                    assert_eq!(answer.encode(id), packet);
                }
            }
        }
    }

    #[test]
    fn another_version_a_cut_or_a_longer_packet_is_nothing() {
        let request = Request::Checkpoint {
            sequence: 7,
            head: [1; 32],
        };
        let good = request.encode(1);
        for end in 0..good.len() {
            assert_eq!(Request::decode(&good[..end]), Err(Malformed));
        }
        assert_eq!(Request::decode(&[&good[..], &[0]].concat()), Err(Malformed));
        let mut newer = good;
        newer[0] = 2;
        assert_eq!(Request::decode(&newer), Err(Malformed));
        let sign = |length| {
            Request::Sign {
                key: KeyId([0; 32]),
                scheme: 0x0807,
                message: &vec![0; length],
            }
            .encode(1)
        };
        assert!(Request::decode(&sign(MESSAGE_MAX)).is_ok());
        assert_eq!(Request::decode(&sign(MESSAGE_MAX + 1)), Err(Malformed));
    }

    #[test]
    fn the_bounds_of_an_answer_hold_on_both_sides() {
        let held = Held {
            key: KeyId([7; 32]),
            schemes: SCHEMES.to_vec(),
        };
        let many = Answer::Keys {
            pid: 1,
            keys: vec![held; KEYS_MAX + 9],
        }
        .encode(1);
        let Ok((_, Answer::Keys { keys, .. })) = Answer::decode(&many) else {
            panic!("no answer");
        };
        assert_eq!(keys.len(), KEYS_MAX);
        let long = Answer::Reloaded(Err("я".repeat(REASON_MAX))).encode(1);
        assert!(
            matches!(Answer::decode(&long), Ok((1, Answer::Reloaded(Err(reason)))) if reason.len() == REASON_MAX)
        );
        for bad in [vec![], vec![0; SIGNATURE_MAX + 1]] {
            assert_eq!(
                Answer::decode(&Answer::Signed(bad).encode(1)),
                Err(Malformed)
            );
        }
    }
}
