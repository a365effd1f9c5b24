//! The throw-away PKI, the configuration, and the processes that the measurement is made of.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use priorgate::policy::keyproto::Held;
use priorgate::tls::keyholder::Keyholder;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tempfile::TempDir;

use crate::cpu;

/// The shop's keys that are measured: how they are called, and how rcgen calls them.
pub(crate) const KINDS: [(&str, &SignatureAlgorithm); 2] = [
    ("rsa-2048", &PKCS_RSA_SHA256),
    ("ecdsa-p256", &PKCS_ECDSA_P256_SHA256),
];

pub(crate) const NAME: &str = "bank.bench.example";

/// Files of one run. The keys lie apart, as `hardening: required` wants it.
pub(crate) struct World {
    dir: TempDir,
    keys: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
            keys: tempfile::tempdir().unwrap(),
        };
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(world.ca(), ca.pem()).unwrap();
        let issue = |name: &str, usage, kind, cert: &Path, key: &Path| {
            let pair = KeyPair::generate_for(kind).unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            fs::write(cert, params.signed_by(&pair, &ca).unwrap().pem()).unwrap();
            fs::write(key, pair.serialize_pem()).unwrap();
            fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
        };
        let (cert, key) = world.bank();
        issue(
            NAME,
            ExtendedKeyUsagePurpose::ServerAuth,
            &PKCS_ECDSA_P256_SHA256,
            &cert,
            &key,
        );
        for (kind, algorithm) in KINDS {
            issue(
                "shop.bench.example",
                ExtendedKeyUsagePurpose::ClientAuth,
                algorithm,
                &world.cert(kind),
                &world.key(kind),
            );
        }
        world
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub(crate) fn cert(&self, kind: &str) -> PathBuf {
        self.dir.path().join(format!("{kind}.crt"))
    }

    pub(crate) fn key(&self, kind: &str) -> PathBuf {
        self.keys.path().join(format!("{kind}.key"))
    }

    /// The bank's certificate and key.
    fn bank(&self) -> (PathBuf, PathBuf) {
        let at = |name| self.keys.path().join(name);
        (at("bank.crt"), at("bank.key"))
    }

    /// Where a gate takes requests for the bank that this key is for.
    pub(crate) fn socket(&self, gate: &str, kind: &str) -> PathBuf {
        self.dir.path().join(gate).join(format!("{kind}.sock"))
    }

    /// A configuration with a bank for each key, in a directory of its own.
    fn config(&self, gate: &str, port: u16) -> PathBuf {
        let uid = rustix::process::getuid().as_raw();
        // Root counts only by name.
        let me = match uid {
            0 => "root".to_owned(),
            uid => uid.to_string(),
        };
        let mut text = "banks:\n".to_owned();
        for (kind, _) in KINDS {
            text.push_str(&format!(
                "  - name: {kind}
    url: https://localhost:{port}
    dns: {{addresses: [127.0.0.1]}}
    trust: {{ca_file: {ca}, server_name: {NAME}}}
    identity: {{cert_file: {cert}, key_file: {key}, sign_rate: {{burst: 65536, per_second: 10000}}}}
    listen: [{{unix: {kind}.sock, callers: [{me}]}}]
    routes: [{{name: create, method: POST, path: /installment/create, connection: fresh}}]
",
                ca = self.ca().display(),
                cert = self.cert(kind).display(),
                key = self.key(kind).display(),
            ));
        }
        // Who operates may not be who calls.
        text.push_str("hardening: required\nadmin: {unix: admin.sock, operators: [65533]}\n");
        let dir = self.dir.path().join(gate);
        fs::create_dir_all(&dir).unwrap();
        let config = dir.join("config.yaml");
        fs::write(&config, text).unwrap();
        config
    }

    fn log(&self, name: &str) -> File {
        File::create(self.dir.path().join(format!("{name}.log"))).unwrap()
    }

    /// The end of a process's log, when it has failed.
    fn told(&self, name: &str) -> String {
        let log = self.dir.path().join(format!("{name}.log"));
        fs::read_to_string(log).unwrap_or_default()
    }
}

/// A process of this program in another role. Killed when dropped.
pub(crate) struct Role {
    child: Child,
    /// The line that it has printed when it was ready.
    pub(crate) said: String,
}

impl Role {
    fn start(world: &World, name: &str, args: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(world.log(name))
            .spawn()
            .unwrap();
        let mut said = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        assert!(said.ends_with('\n'), "{name}: {}", world.told(name));
        said.truncate(said.len() - 1);
        Self { child, said }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bank's two ports: one that shakes hands and says a byte, and one that answers requests.
pub(crate) fn bank(world: &World) -> (Role, u16, u16) {
    let (cert, key) = world.bank();
    let ca = world.ca();
    let args = [&ca, &cert, &key].map(|path| path.to_str().unwrap());
    let role = Role::start(world, "bank", &[&["bank"][..], &args].concat());
    let mut ports = role.said.split(' ').map(|port| port.parse().unwrap());
    let (hands, requests) = (ports.next().unwrap(), ports.next().unwrap());
    (role, hands, requests)
}

/// A whole gate: `in-process` or `keyholder`.
pub(crate) fn gate(world: &World, keys: &str, port: u16) -> Role {
    let config = world.config(keys, port);
    Role::start(world, keys, &["gate", keys, config.to_str().unwrap()])
}

/// The real keyholder, without a gate before it.
pub(crate) struct Split {
    monitor: Child,
    pub(crate) keyholder: Arc<Keyholder>,
    pub(crate) held: Vec<Held>,
}

impl Split {
    pub(crate) fn start(world: &World) -> Self {
        let config = world.config("alone", 1);
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs): (OwnedFd, OwnedFd) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let monitor = Command::new(std::env::current_exe().unwrap())
            .args(["keyholder", "--config"])
            .arg(config)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            // A line for each signature, as in service.
            .stderr(world.log("alone"))
            .process_group(0)
            .spawn()
            .unwrap();
        let keyholder = Arc::new(Keyholder::inherited(ours).unwrap());
        let held = keyholder
            .keys(Instant::now() + Duration::from_secs(15))
            .unwrap_or_else(|error| panic!("{error}: {}", world.told("alone")));
        Self {
            monitor,
            keyholder,
            held,
        }
    }

    /// Monitor and signer.
    pub(crate) fn pids(&self) -> (u32, u32) {
        let signer = self.keyholder.facts().pid.unwrap();
        (self.monitor.id(), signer)
    }
}

impl Drop for Split {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

/// The keyholder's two processes behind a gate.
pub(crate) fn keyholder_of(gate: &Role) -> (u32, u32) {
    let monitor = cpu::child(gate.pid()).expect("the gate has a monitor");
    (monitor, cpu::child(monitor).expect("it has a signer"))
}
