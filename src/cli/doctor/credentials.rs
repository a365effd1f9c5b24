//! Keys that a service manager hands over: which unit loads a credential, from where, and who can read that.
//!
//! The unit files are read as they lie there, so that it can be told before anything is started.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Findings;
use super::keys::{readers, replacers};

/// The keyholder's unit: the only one that may load a key.
const KEYHOLDER: &str = "priorgate-keyholder.service";
/// The gate's.
const GATE: &str = "priorgate.service";
/// Where unit files lie, the strongest first (systemd.unit(5)).
const DIRECTORIES: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
/// Where the copies of running units lie.
const COPIES: &str = "run/credentials";
/// A unit file is some kilobytes: what is longer is none.
const FILE_MAX: u64 = 256 << 10;
/// A name in the configuration.
const NAME_MAX: usize = 255;

/// How a unit gets a credential.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Source {
    /// It stands in the unit file.
    Here,
    /// A file; `None` for what the service manager looks for in its own directories.
    File {
        path: Option<PathBuf>,
        encrypted: bool,
    },
}

/// A name that a path such as `/run/credentials/priorgate-keyholder.service/audit.key` stands for.
pub(super) fn named_by(path: &Path) -> Option<&str> {
    let copies = Path::new("/").join(COPIES).join(KEYHOLDER);
    let name = path.strip_prefix(copies).ok()?.to_str()?;
    (!name.contains('/')).then_some(name)
}

/// The file from which a credential comes, if it can be read as it is.
pub(super) fn plain_file(root: &Path, name: &str) -> Option<PathBuf> {
    let unit = Unit::read(root, KEYHOLDER)?;
    match unit.credentials.get(name)? {
        Source::File {
            path: Some(path),
            encrypted: false,
        } => Some(path.clone()),
        Source::File { .. } | Source::Here => None,
    }
}

/// Looks at a credential. `directory` is where this process finds its own, if it has any.
pub(super) fn look(
    root: &Path,
    directory: Option<&Path>,
    subject: &str,
    name: &str,
    findings: &mut Findings,
) {
    if Unit::read(root, GATE).is_some_and(|gate| gate.credentials.contains_key(name)) {
        findings.red(
            subject,
            format!("{GATE} loads the credential {name}: the process with the network can read it"),
            &format!("take it out of {GATE}; only {KEYHOLDER} loads it"),
        );
    }
    let keyholder = Unit::read(root, KEYHOLDER);
    let loaded = keyholder
        .as_ref()
        .and_then(|unit| unit.credentials.get(name));
    match (loaded, &keyholder, directory) {
        (Some(source), ..) => loaded_from(subject, name, source, findings),
        (None, Some(_), _) => findings.red(
            subject,
            format!("{KEYHOLDER} does not load the credential {name}"),
            &format!(
                "add `LoadCredential={name}:PATH` to a drop-in of it, and `systemctl daemon-reload`"
            ),
        ),
        (None, None, Some(directory)) => {
            let file = directory.join(name);
            findings.green(
                subject,
                format!("credential {name}, of no unit: {}", file.display()),
            );
            readers(subject, &file, findings);
        }
        (None, None, None) => findings.yellow(
            subject,
            format!("there is no {KEYHOLDER} that would load the credential {name}"),
            "install the units of the package, or name a file in identity.key_file",
        ),
    }
    let copy = root.join(COPIES).join(KEYHOLDER).join(name);
    if copy.exists() {
        readers(
            &format!("{subject}, the running unit's copy"),
            &copy,
            findings,
        );
    }
}

fn loaded_from(subject: &str, name: &str, source: &Source, findings: &mut Findings) {
    match source {
        Source::Here => findings.red(
            subject,
            format!("the credential {name} stands in a unit file, which every user can read"),
            &format!(
                "write it to a file of root's, 0600, and name that in `LoadCredential={name}:PATH`"
            ),
        ),
        Source::File { path, encrypted } => {
            let how = if *encrypted { ", encrypted," } else { "" };
            let from = path.as_ref().map_or_else(
                || "the service manager's own directories".to_owned(),
                |path| path.display().to_string(),
            );
            findings.green(
                subject,
                format!("credential {name}{how} is loaded by {KEYHOLDER} from {from}"),
            );
            if let Some(path) = path {
                // Whoever can read an encrypted one has nothing of it, but can still put another one there.
                if !encrypted {
                    readers(subject, path, findings);
                }
                replacers(subject, path, findings);
            }
        }
    }
}

/// What the files of a unit say of credentials.
#[derive(Debug, Default)]
struct Unit {
    credentials: BTreeMap<String, Source>,
}

impl Unit {
    /// `None` when there is no such unit.
    fn read(root: &Path, unit: &str) -> Option<Self> {
        let directories = DIRECTORIES.map(|directory| root.join(directory));
        let main = directories
            .iter()
            .find_map(|directory| text(&directory.join(unit)))?;
        // By name, whatever directory they are in; of one name the strongest directory's counts.
        let mut drop_ins = BTreeMap::new();
        for directory in directories.iter().rev() {
            let entries = fs::read_dir(directory.join(format!("{unit}.d")));
            for entry in entries.into_iter().flatten().flatten() {
                let path = entry.path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "conf")
                {
                    drop_ins.insert(entry.file_name(), path);
                }
            }
        }
        let mut read = Self::default();
        read.take(&main);
        for path in drop_ins.values() {
            read.take(&text(path).unwrap_or_default());
        }
        Some(read)
    }

    fn take(&mut self, text: &str) {
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once('=') else {
                continue;
            };
            let value = value.trim();
            let (file, encrypted) = match key.trim() {
                "LoadCredential" => (true, false),
                "LoadCredentialEncrypted" => (true, true),
                "SetCredential" => (false, false),
                // Encrypted to this machine, in the unit file itself.
                "SetCredentialEncrypted" => (true, true),
                _ => continue,
            };
            if value.is_empty() {
                // An empty assignment takes back those before it, plain and encrypted ones alike.
                let of_files = |source: &Source| matches!(source, Source::File { .. });
                self.credentials
                    .retain(|_, source| of_files(source) != file);
                continue;
            }
            let (name, rest) = value.split_once(':').unwrap_or((value, ""));
            if name.is_empty() || name.len() > NAME_MAX {
                continue;
            }
            let source = if file {
                let path = Path::new(rest);
                Source::File {
                    path: path.is_absolute().then(|| path.to_owned()),
                    encrypted,
                }
            } else {
                Source::Here
            };
            self.credentials.insert(name.to_owned(), source);
        }
    }
}

fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(FILE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::super::Colour;
    use super::*;

    fn unit(root: &Path, path: &str, text: &str) {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn machine(drop_in: &str) -> (TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let key = root.path().join("client.key");
        fs::write(&key, "").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let load = format!("[Service]\nLoadCredential=client.key:{}\n", key.display());
        unit(
            root.path(),
            "usr/lib/systemd/system/priorgate-keyholder.service",
            &load,
        );
        unit(
            root.path(),
            "usr/lib/systemd/system/priorgate.service",
            "[Service]\n",
        );
        let at = "etc/systemd/system/priorgate-keyholder.service.d/key.conf";
        unit(root.path(), at, drop_in);
        (root, key)
    }

    fn seen(root: &Path, directory: Option<&Path>) -> Vec<(Colour, String)> {
        let mut findings = Findings::default();
        look(root, directory, "key", "client.key", &mut findings);
        // A temporary directory may be replaced by whoever may write beside it: that is another's test.
        let told = findings.0.into_iter();
        let told = told.filter(|line| !line.message.contains("replace"));
        told.map(|line| (line.colour, line.message)).collect()
    }

    #[test]
    fn the_unit_that_loads_a_credential_is_found_and_its_file_looked_at() {
        let (root, key) = machine("");
        let told = seen(root.path(), None);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0]
                .1
                .contains("is loaded by priorgate-keyholder.service from")
        );
        assert!(told[1].1.contains("and root can read"));
        assert!(told.iter().all(|line| line.0 == Colour::Green), "{told:?}");
        assert_eq!(plain_file(root.path(), "client.key"), Some(key.clone()));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(seen(root.path(), None)[1].0, Colour::Yellow);
    }

    #[test]
    fn a_drop_in_takes_back_and_replaces_what_the_unit_loads() {
        let encrypted =
            "[Service]\nLoadCredential=\nLoadCredentialEncrypted=client.key:/etc/k.cred\n";
        let (root, _) = machine(encrypted);
        let told = seen(root.path(), None);
        assert!(told[0].1.contains("encrypted, is loaded"), "{told:?}");
        assert_eq!(plain_file(root.path(), "client.key"), None);
        let (root, _) = machine("[Service]\nLoadCredential=\n");
        assert_eq!(seen(root.path(), None)[0].0, Colour::Red);
        let (root, _) = machine("[Service]\nSetCredential=client.key:secret\n");
        let told = seen(root.path(), None);
        assert!(told[0].1.contains("every user can read"), "{told:?}");
        assert!(!told[0].1.contains("secret"));
    }

    #[test]
    fn a_gate_that_loads_the_key_is_red() {
        let (root, _) = machine("");
        let drop_in = "[Service]\nLoadCredential=client.key:/k\n";
        unit(
            root.path(),
            "run/systemd/system/priorgate.service.d/x.conf",
            drop_in,
        );
        let told = seen(root.path(), None);
        assert_eq!(told[0].0, Colour::Red);
        assert!(
            told[0].1.contains("the process with the network"),
            "{told:?}"
        );
    }

    #[test]
    fn without_a_unit_the_credentials_directory_is_looked_at() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(seen(root.path(), None)[0].0, Colour::Yellow);
        let own = tempfile::tempdir().unwrap();
        let key = own.path().join("client.key");
        fs::write(&key, "").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        let told = seen(root.path(), Some(own.path()));
        assert!(told.iter().all(|line| line.0 == Colour::Green), "{told:?}");
        assert!(told[0].1.contains("of no unit"));
    }

    #[test]
    fn a_path_among_the_keyholders_copies_names_a_credential() {
        let named = |path: &str| named_by(Path::new(path)).map(str::to_owned);
        let copy = "/run/credentials/priorgate-keyholder.service/audit.key";
        assert_eq!(named(copy), Some("audit.key".to_owned()));
        assert_eq!(named("/etc/priorgate-keys/audit.key"), None);
    }
}
