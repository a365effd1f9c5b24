//! The whole memory of every live process, read as root: the key is in the signer, and nowhere else.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use base64ct::{Base64, Encoding};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize,
};

use crate::support::is_root;
use crate::support::pki::replace;
use crate::support::process::children;
use crate::support::world::World;

const PAGE: usize = 4096;

/// Something that must be found, or must not.
struct Needle {
    name: String,
    bytes: Vec<u8>,
    /// A private value as the library computes with it; everything else is text or DER.
    live: bool,
}

/// One DER element: tag, content, what follows.
fn element(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (size, head) = match der[1] {
        short @ 0..=0x7f => (usize::from(short), 2),
        long => {
            let count = usize::from(long & 0x7f);
            let bytes = der[2..2 + count].iter();
            (
                bytes.fold(0, |size, byte| size << 8 | usize::from(*byte)),
                2 + count,
            )
        }
    };
    (der[0], &der[head..head + size], &der[head + size..])
}

/// The elements of a SEQUENCE.
fn sequence(der: &[u8]) -> Vec<(u8, &[u8])> {
    let (_, mut rest, _) = element(der);
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (tag, content, after) = element(rest);
        found.push((tag, content));
        rest = after;
    }
    found
}

/// The key inside PKCS#8: PKCS#1, SEC1 or an OCTET STRING.
fn inner(pkcs8: &[u8]) -> &[u8] {
    sequence(pkcs8)[2].1
}

fn unsigned(integer: &[u8]) -> Vec<u8> {
    integer
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect()
}

fn needles(kind: &str, key: &KeyPair, pem: &str) -> Vec<Needle> {
    let der = key.serialized_der();
    let values: Vec<(&str, Vec<u8>)> = match kind {
        "rsa" => {
            let fields = sequence(inner(der));
            let field = |index: usize| unsigned(fields[index].1);
            vec![("d", field(3)), ("p", field(4)), ("q", field(5))]
        }
        "ec" => vec![("d", sequence(inner(der))[1].1.to_vec())],
        _ => vec![("seed", element(inner(der)).1.to_vec())],
    };
    let mut needles = Vec::new();
    for (name, value) in values {
        let mut reversed = value.clone();
        reversed.reverse();
        for (order, bytes) in [("big-endian", value), ("little-endian", reversed)] {
            needles.push(Needle {
                name: format!("{kind} {name} {order}"),
                bytes,
                live: true,
            });
        }
    }
    needles.push(Needle {
        name: format!("{kind} DER"),
        bytes: inner(der).to_vec(),
        live: false,
    });
    let public = key.subject_public_key_info();
    let lines = pem.lines().filter(|line| !line.contains("-----"));
    for (index, line) in lines.enumerate() {
        let decoded = Base64::decode_vec(line).unwrap();
        // A line of the public key alone stands in the certificate as well.
        if line.len() < 16 || public.windows(decoded.len()).any(|part| part == decoded) {
            continue;
        }
        needles.push(Needle {
            name: format!("{kind} PEM line {index}"),
            bytes: line.as_bytes().to_vec(),
            live: false,
        });
    }
    assert!(needles.last().unwrap().name.contains("PEM"));
    needles
}

/// How often each needle is in a process's memory. Panics when the memory cannot be read.
fn count(pid: u32, needles: &[Needle]) -> Vec<usize> {
    let mut by_start: HashMap<[u8; 4], Vec<usize>> = HashMap::new();
    for (index, needle) in needles.iter().enumerate() {
        by_start
            .entry(needle.bytes[..4].try_into().unwrap())
            .or_default()
            .push(index);
    }
    // Asked of every position: cheaper than the map.
    let mut likely = vec![false; 1 << 16];
    for start in by_start.keys() {
        likely[usize::from(u16::from_be_bytes([start[0], start[1]]))] = true;
    }
    let mut found = vec![0; needles.len()];
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let (mut regions, mut bytes) = (0, 0);
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))
        .unwrap()
        .lines()
    {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
        if !fields.next().unwrap().starts_with('r') || line.contains("[v") {
            continue;
        }
        let mut region = vec![0; usize::try_from(end - start).unwrap()];
        // In one piece, or else page by page: one page that cannot be read must not hide those beside it.
        let mut read = region.len();
        if memory.read_exact_at(&mut region, start).is_err() {
            read = 0;
            for (page, at) in region.chunks_mut(PAGE).zip((start..).step_by(PAGE)) {
                match memory.read_exact_at(page, at) {
                    Ok(()) => read += page.len(),
                    Err(_) => page.fill(0),
                }
            }
        }
        regions += 1;
        bytes += read;
        for at in 0..region.len().saturating_sub(4) {
            if !likely[usize::from(u16::from_be_bytes([region[at], region[at + 1]]))] {
                continue;
            }
            let four: [u8; 4] = region[at..at + 4].try_into().unwrap();
            for index in by_start.get(&four).into_iter().flatten() {
                if region[at..].starts_with(&needles[*index].bytes) {
                    found[*index] += 1;
                }
            }
        }
    }
    assert!(
        regions > 20 && bytes > 1 << 20,
        "{regions} regions, {bytes} bytes"
    );
    found
}

fn pem_of(kind: &str, key: &KeyPair, form: &str) -> String {
    // The older forms hold what PKCS#8 wraps.
    let label = match form {
        "PKCS#1" => "RSA PRIVATE KEY",
        "SEC1" => "EC PRIVATE KEY",
        _ => return key.serialize_pem(),
    };
    assert_ne!(kind, "ed25519");
    let text = Base64::encode_string(inner(key.serialized_der()));
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn scan(kind: &str, form: &str, key: KeyPair) {
    let world = World::new();
    let bank = world.good_bank();
    let setup = world.setup(bank.port());
    let pem = pem_of(kind, &key, form);
    let needles = needles(kind, &key, &pem);
    replace(
        &setup.path().join("client.crt"),
        &world.client_ca.client_for("shop", &key).pem(),
    );
    replace(&setup.path().join("client.key"), &pem);
    let gate = setup.start();
    for _ in 0..100 {
        assert_eq!(
            gate.unix().post("/installment/refund", "", b"{}").status,
            200
        );
    }
    assert_eq!(bank.connections(), 100);
    assert_eq!(gate.status()["keyholder"]["signatures"], 100);
    let gate_pid = gate.pid().as_raw_nonzero().get().cast_unsigned();
    let monitor = children(gate_pid)[0];
    let signer = children(monitor)[0];
    assert_eq!(children(monitor).len(), 1);
    if !is_root() {
        // Then the confinement itself is what is seen: the same user may not look.
        for pid in [monitor, signer] {
            assert!(File::open(format!("/proc/{pid}/mem")).is_err());
        }
        return;
    }
    for (name, pid) in [("gate", gate_pid), ("monitor", monitor)] {
        for (needle, times) in needles.iter().zip(count(pid, &needles)) {
            assert_eq!(times, 0, "{form}: {} is in the {name}", needle.name);
        }
    }
    let found = count(signer, &needles);
    for (needle, times) in needles.iter().zip(&found) {
        println!("{kind} {form}: {} {times}", needle.name);
        let most = if needle.live { 2 } else { 0 };
        assert!(
            *times <= most,
            "{form}: {} is {times} times in the signer",
            needle.name
        );
    }
    // The scan sees what is there: each value, in one order or the other.
    for pair in needles
        .iter()
        .zip(&found)
        .filter(|(needle, _)| needle.live)
        .collect::<Vec<_>>()
        .chunks(2)
    {
        let times = pair[0].1 + pair[1].1;
        assert!(
            (1..=2).contains(&times),
            "{form}: {} {times} times",
            pair[0].0.name
        );
    }
    assert!(Path::new(&format!("/proc/{signer}")).exists());
}

#[test]
fn an_rsa_key_is_in_the_memory_of_the_signer_alone() {
    let key = || KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    scan("rsa", "PKCS#8", key());
    scan("rsa", "PKCS#1", key());
}

#[test]
fn an_ec_key_is_in_the_memory_of_the_signer_alone() {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    scan("ec", "PKCS#8", key());
    scan("ec", "SEC1", key());
}

#[test]
fn an_ed25519_key_is_in_the_memory_of_the_signer_alone() {
    scan(
        "ed25519",
        "PKCS#8",
        KeyPair::generate_for(&PKCS_ED25519).unwrap(),
    );
}
