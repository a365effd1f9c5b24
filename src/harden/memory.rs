//! Whether a private key is in a process's memory: for `doctor` and for the test of the split, both as root.
//!
//! It owns the marks of a key (its private values in both byte orders, its DER, lines of its PEM) and the reading of
//! `/proc/PID/mem`. The reader holds the key itself while it looks, so it is never the process that is looked at.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;

use base64ct::{Base64, Encoding};
use rustls::pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;
/// Bytes of a mark: enough that no accident makes them.
const MARK: usize = 24;
/// A line of PEM stands for 48 bytes.
const PEM_LINE: usize = 48;
/// Values shorter than this are parameters (an exponent of 65537), not secrets.
const SECRET_MIN: usize = 24;
/// A process of ours is tens of MiB; what is mapped beyond this is not read.
const MEMORY_MAX: u64 = 4 << 30;

/// What a key looks like in memory.
pub struct Marks(Vec<Mark>);

struct Mark {
    name: &'static str,
    bytes: Zeroizing<Vec<u8>>,
}

/// How often a mark was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Which: `d`, `p`, `q`, `seed` (big-endian), the same with `reversed`, `der`, `pem`.
    pub name: &'static str,
    /// Places.
    pub count: usize,
}

impl Marks {
    /// Of a private key. The public parts of it (a modulus, a point) are in every certificate and are no marks.
    #[must_use]
    pub fn of(key: &PrivateKeyDer<'_>) -> Self {
        let mut marks = Self(Vec::new());
        let (der, inner) = match key {
            PrivateKeyDer::Pkcs8(key) => {
                let der = key.secret_pkcs8_der();
                (der, pkcs8_inner(der))
            }
            PrivateKeyDer::Pkcs1(key) => (key.secret_pkcs1_der(), Some(key.secret_pkcs1_der())),
            PrivateKeyDer::Sec1(key) => (key.secret_sec1_der(), Some(key.secret_sec1_der())),
            _ => return marks,
        };
        let inner = inner.unwrap_or(der);
        for (name, reversed, value) in values(inner) {
            marks.add(name, middle(value, MARK));
            let mut backwards = Zeroizing::new(middle(value, MARK).to_vec());
            backwards.reverse();
            marks.add(reversed, &backwards);
            // A piece that only the file's encoding has: the value with what stands before it.
            if let Some(at) = position(der, value) {
                let start = at.saturating_sub(4);
                let end = at.saturating_add(MARK).min(der.len());
                marks.add("der", der.get(start..end).unwrap_or_default());
            }
        }
        for line in der.chunks_exact(PEM_LINE) {
            let text = Zeroizing::new(Base64::encode_string(line));
            // Only lines with a secret in them: an RSA key begins with its public modulus.
            let secret = values(inner).iter().any(|(_, _, value)| {
                position(der, value).is_some_and(|at| {
                    let line_at = line.as_ptr().addr().wrapping_sub(der.as_ptr().addr());
                    line_at >= at
                        && line_at.saturating_add(PEM_LINE) <= at.saturating_add(value.len())
                })
            });
            if secret {
                marks.add("pem", text.as_bytes());
            }
        }
        marks
    }

    fn add(&mut self, name: &'static str, bytes: &[u8]) {
        if !bytes.is_empty() {
            let bytes = Zeroizing::new(bytes.to_vec());
            self.0.push(Mark { name, bytes });
        }
    }

    /// Looks for every mark in a process's readable memory.
    ///
    /// # Errors
    /// When the process is gone, or its memory is not open to us (it is not to anybody but root).
    pub fn search(&self, pid: u32) -> io::Result<Vec<Found>> {
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let maps = BufReader::new(File::open(format!("/proc/{pid}/maps"))?);
        let mut counts = vec![0_usize; self.0.len()];
        let longest = self.0.iter().map(|mark| mark.bytes.len()).max();
        let overlap = longest.unwrap_or(1).saturating_sub(1);
        let mut buffer = Zeroizing::new(vec![0_u8; CHUNK.saturating_add(overlap)]);
        let mut seen = 0_u64;
        for line in maps.lines() {
            let Some((start, end)) = readable(&line?) else {
                continue;
            };
            let (mut at, mut kept) = (start, 0_usize);
            while at < end && seen < MEMORY_MAX {
                let want = usize::try_from(end.saturating_sub(at))
                    .unwrap_or(CHUNK)
                    .min(CHUNK);
                let Some(into) = buffer.get_mut(kept..kept.saturating_add(want)) else {
                    break;
                };
                // What was unmapped since, or cannot be read, ends this mapping.
                let read = match memory.read_at(into, at) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => read,
                };
                let filled = kept.saturating_add(read);
                self.count(buffer.get(..filled).unwrap_or_default(), kept, &mut counts);
                kept = overlap.min(filled);
                buffer.copy_within(filled.saturating_sub(kept)..filled, 0);
                at = at.saturating_add(read as u64);
                seen = seen.saturating_add(read as u64);
            }
        }
        Ok(self.sum(&counts))
    }

    /// Counts what ends in `bytes` after the first `kept`, which were looked at before.
    fn count(&self, bytes: &[u8], kept: usize, counts: &mut [usize]) {
        let mut starts = [false; 256];
        for mark in &self.0 {
            if let Some(start) = mark
                .bytes
                .first()
                .and_then(|byte| starts.get_mut(usize::from(*byte)))
            {
                *start = true;
            }
        }
        for (at, byte) in bytes.iter().enumerate() {
            if !starts.get(usize::from(*byte)).copied().unwrap_or(false) {
                continue;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            for (mark, count) in self.0.iter().zip(counts.iter_mut()) {
                if rest.starts_with(&mark.bytes) && at.saturating_add(mark.bytes.len()) > kept {
                    *count = count.saturating_add(1);
                }
            }
        }
    }

    fn sum(&self, counts: &[usize]) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        for (mark, count) in self.0.iter().zip(counts) {
            match found.iter_mut().find(|it| it.name == mark.name) {
                Some(it) => it.count = it.count.saturating_add(*count),
                None => found.push(Found {
                    name: mark.name,
                    count: *count,
                }),
            }
        }
        found
    }
}

/// The addresses of a mapping that can be read and is memory: a device's would have side effects.
fn readable(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let readable = words.next()?.starts_with('r');
    let name = words.nth(3).unwrap_or_default();
    let special = ["[vvar", "[vsyscall", "/dev/"]
        .iter()
        .any(|it| name.starts_with(it));
    if !readable || special {
        return None;
    }
    let address = |text| u64::from_str_radix(text, 16).ok();
    Some((address(start)?, address(end)?))
}

/// The private values of RSAPrivateKey (RFC 8017), ECPrivateKey (RFC 5915) or CurvePrivateKey (RFC 8410).
fn values(inner: &[u8]) -> Vec<(&'static str, &'static str, &[u8])> {
    let Some((0x30, body, _)) = element(inner) else {
        // RFC 8410: an OCTET STRING in an OCTET STRING.
        return match element(inner) {
            Some((0x04, seed, _)) => secret("seed", "seed reversed", seed).into_iter().collect(),
            _ => Vec::new(),
        };
    };
    let mut parts = Vec::new();
    let mut rest = body;
    while let Some((tag, value, after)) = element(rest) {
        parts.push((tag, value));
        rest = after;
    }
    let value = |index: usize, tag: u8| match parts.get(index) {
        Some((found, value)) if *found == tag => *value,
        _ => &[],
    };
    let named = [
        ("d", "d reversed", value(1, 0x04)),
        ("d", "d reversed", value(3, 0x02)),
        ("p", "p reversed", value(4, 0x02)),
        ("q", "q reversed", value(5, 0x02)),
    ];
    let found = named
        .into_iter()
        .filter_map(|(name, reversed, value)| secret(name, reversed, value));
    found.collect()
}

fn secret<'v>(
    name: &'static str,
    reversed: &'static str,
    value: &'v [u8],
) -> Option<(&'static str, &'static str, &'v [u8])> {
    // DER puts a zero before an integer whose first bit is set.
    let value = value.strip_prefix(&[0]).unwrap_or(value);
    (value.len() >= SECRET_MIN).then_some((name, reversed, value))
}

/// What PKCS#8 wraps: version, algorithm, then the key as an OCTET STRING.
fn pkcs8_inner(der: &[u8]) -> Option<&[u8]> {
    let (_, body, _) = element(der)?;
    let (_, _, rest) = element(body)?;
    let (_, _, rest) = element(rest)?;
    match element(rest)? {
        (0x04, key, _) => Some(key),
        _ => None,
    }
}

/// The first element of some DER: tag, value, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if first & 0x80 == 0 {
        (usize::from(*first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length = bytes.iter().try_fold(0_usize, |length, byte| {
            length.checked_mul(256)?.checked_add(usize::from(*byte))
        })?;
        (length, rest)
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((*tag, value, rest))
}

fn position(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len().max(1)).position(|it| it == needle)
}

fn middle(value: &[u8], length: usize) -> &[u8] {
    let length = length.min(value.len());
    let start = value.len().saturating_sub(length) / 2;
    value
        .get(start..start.saturating_add(length))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
