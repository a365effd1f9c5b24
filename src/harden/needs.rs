//! What a gate needs after its start, as a function of its configuration: no system call is made here.
//!
//! Landlock's rules bind to inodes and reach down, so directories are needed, not files: a certificate is rotated by a
//! rename inside its directory. What a reload needs beyond what was needed at the start wants a restart.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::callback::{self, Callback, Socket, Target};
use crate::config::{Bank, Config, KeySource, Listen, Transport};

/// DNS over TCP, for answers that do not fit a datagram.
const DNS: u16 = 53;

/// What `getaddrinfo` reads. A rule for a file follows its inode, so a replaced one is looked for (see
/// [`super::Confined::replaced_resolver`]).
pub const RESOLVER_FILES: [&str; 5] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
];

/// What a gate needs of the file system and the network once it serves.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GateNeeds {
    /// Files that a reload reads again: their directories are granted, for reading.
    pub read: BTreeSet<PathBuf>,
    /// Directories of the journal and the audit log: reading, writing, making, renaming, removing files.
    pub write: BTreeSet<PathBuf>,
    /// Directories of socket files: the listeners remove theirs at the end.
    pub sockets: BTreeSet<PathBuf>,
    /// Socket files of the shop. Kernels that know how are asked for them; none that is tested does.
    pub connect_unix: BTreeSet<PathBuf>,
    /// TCP ports that are connected to.
    pub connect_tcp: BTreeSet<u16>,
    /// Whether names are looked up: the resolver's files, and port 53.
    pub names: bool,
    /// Private keys. They are not needed: they must not lie beneath anything that is.
    pub keys: BTreeSet<PathBuf>,
}

impl GateNeeds {
    /// Of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut needs = Self::default();
        needs.read.insert(config.path.clone());
        for bank in &config.banks {
            needs.bank(bank);
        }
        for callback in &config.callbacks {
            needs.callback(callback);
        }
        if let Some(journal) = &config.journal {
            needs.write.insert(directory(&journal.path));
        }
        if let Some(audit) = &config.audit {
            needs.write.insert(directory(&audit.file));
            if let Some(key) = &audit.key {
                needs.read.insert(key.public_file.clone());
                needs.keys.insert(key.file.clone());
            }
        }
        if let Some(unix) = &config.admin.unix {
            needs.sockets.insert(directory(&unix.socket.path));
        }
        if needs.names {
            needs.connect_tcp.insert(DNS);
        }
        needs
    }

    fn bank(&mut self, bank: &Bank) {
        if let Transport::Tls(tls) = &bank.transport {
            self.read
                .extend([tls.ca_file.clone(), tls.cert_file.clone()]);
            if let KeySource::File(file) = &tls.key {
                self.keys.insert(file.clone());
            }
        }
        let headers = bank.headers.set_files.iter();
        self.read.extend(headers.map(|header| header.file.clone()));
        for listen in &bank.listen {
            match listen {
                Listen::Unix { socket, .. } => {
                    self.sockets.insert(directory(&socket.path));
                }
                Listen::Tcp { access, .. } => {
                    self.read.extend(access.token_files().iter().cloned());
                }
            }
        }
        self.connect_tcp.insert(bank.remote.port);
        self.names |= looks_up(bank);
    }

    fn callback(&mut self, callback: &Callback) {
        let keys = callback.signature.keys.iter();
        self.read.extend(keys.map(|key| key.file.clone()));
        let secrets = callback.deliver.secret_files.iter();
        self.read.extend(secrets.cloned());
        for callback::Listen { socket, .. } in &callback.listen {
            if let Socket::Unix(socket) = socket {
                self.sockets.insert(directory(&socket.path));
            }
        }
        match &callback.deliver.target {
            Target::Tcp(address) => {
                self.connect_tcp.insert(address.port());
            }
            Target::Unix(path) => {
                self.connect_unix.insert(path.clone());
            }
        }
    }

    /// Every directory that can be read when this is granted; `resolve` follows symbolic links.
    pub fn readable(&self, resolve: impl Fn(&Path) -> Option<PathBuf>) -> BTreeSet<PathBuf> {
        let resolved = |path: &Path| resolve(path).unwrap_or_else(|| path.to_owned());
        let mut found: BTreeSet<PathBuf> = self
            .read
            .iter()
            // The directory that is named, and the one that a link in it leads to.
            .flat_map(|file| [resolved(&directory(file)), directory(&resolved(file))])
            .collect();
        found.extend(self.write.iter().map(|path| resolved(path)));
        found
    }

    /// The first thing in `self` that is not granted by `in_force`, in the words of an operator.
    pub fn beyond(
        &self,
        in_force: &Self,
        resolve: impl Fn(&Path) -> Option<PathBuf> + Copy,
    ) -> Option<String> {
        let granted = in_force.readable(resolve);
        let beneath = |path: &PathBuf, granted: &BTreeSet<PathBuf>| {
            granted.iter().any(|root| path.starts_with(root))
        };
        let below = |directory: &PathBuf| {
            format!(
                "the directory {} is needed, and not open to this process",
                directory.display()
            )
        };
        if let Some(path) = self
            .readable(resolve)
            .iter()
            .find(|path| !beneath(path, &granted))
        {
            return Some(below(path));
        }
        let written = self.write.difference(&in_force.write);
        let sockets = self.sockets.difference(&in_force.sockets);
        if let Some(path) = written.chain(sockets).next() {
            return Some(below(path));
        }
        if let Some(path) = self.connect_unix.difference(&in_force.connect_unix).next() {
            return Some(format!(
                "the socket {} is needed, and not open to this process",
                path.display()
            ));
        }
        if self.names && !in_force.names {
            return Some("a name is to be looked up, and this process started without".to_owned());
        }
        let port = self.connect_tcp.difference(&in_force.connect_tcp).next()?;
        Some(format!(
            "TCP port {port} is needed, and not open to this process"
        ))
    }

    /// Every private key that lies beneath a directory which the gate may read, with that directory.
    pub fn exposed_keys(
        &self,
        resolve: impl Fn(&Path) -> Option<PathBuf> + Copy,
    ) -> Vec<(PathBuf, PathBuf)> {
        let granted = self.readable(resolve);
        let mut found = Vec::new();
        for key in &self.keys {
            let real = resolve(key).unwrap_or_else(|| key.clone());
            let root = granted
                .iter()
                .find(|root| real.starts_with(root) || key.starts_with(root));
            found.extend(root.map(|root| (key.clone(), root.clone())));
        }
        found
    }
}

fn looks_up(bank: &Bank) -> bool {
    bank.dns.addresses.is_empty() && bank.remote.host.parse::<std::net::IpAddr>().is_err()
}

/// Paths of a configuration are absolute; the root has no parent and stands for itself.
fn directory(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests;
