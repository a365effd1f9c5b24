//! Private keys on disk: who can read them, who can replace them, and whether a web server might hand them out.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Findings;
use crate::config::{Config, Hardening, KeySource, Transport};
use crate::harden::needs::GateNeeds;
use crate::harden::rules;

/// Where distributions and Bitrix's own environment put sites.
const WEB_ROOTS: [&str; 7] = [
    "/home/bitrix/www",
    "/home/bitrix/ext_www",
    "/srv/http",
    "/srv/www",
    "/usr/local/www",
    "/usr/share/nginx",
    "/var/www",
];
/// Names of a web root, wherever it is.
const WEB_NAMES: [&str; 4] = ["htdocs", "httpdocs", "public_html", "wwwroot"];

pub(super) fn look(config: &Config, findings: &mut Findings) {
    for bank in &config.banks {
        if let Transport::Tls(tls) = &bank.transport {
            let subject = format!("{}: private key", bank.name);
            // A credential lies where the service manager puts it, for the keyholder's user alone.
            if let KeySource::File(file) = &tls.key {
                readers(&subject, file, findings);
                replacers(&subject, file, findings);
            }
        }
    }
    let audit = config.audit.as_ref().and_then(|audit| audit.key.as_ref());
    if let Some(KeySource::File(file)) = audit.map(|key| &key.source) {
        readers("audit log: private key", file, findings);
        replacers("audit log: private key", file, findings);
    }
    let needs = GateNeeds::of(config);
    for file in needs.keys.iter().chain(&needs.read) {
        let real = file.canonicalize().unwrap_or_else(|_| file.clone());
        if in_web_root(file) || in_web_root(&real) {
            let message = format!("{} lies in a web root", file.display());
            findings.red(
                "web root",
                message,
                "move it: one mistake in the web server's configuration gives it away",
            );
        }
    }
    let exposed = rules::keys(config);
    if exposed.is_empty() {
        findings.green(
            "private keys",
            "none lies beneath a directory that the gate may read",
        );
    }
    // Under `required` they are among the findings of `check`, as what `run` refuses.
    if config.hardening == Hardening::Disabled {
        for mistake in exposed {
            findings.yellow("private keys", mistake.message, &mistake.help);
        }
    }
}

fn readers(subject: &str, key: &Path, findings: &mut Findings) {
    let Ok(found) = fs::metadata(key) else {
        findings.yellow(
            subject,
            format!("{} cannot be looked at", key.display()),
            "run doctor as root",
        );
        return;
    };
    let (mode, path) = (found.mode() & 0o777, key.display());
    let world = mode & 0o004 != 0 && directories(key).all(|dir| bits(dir, 0o001) != 0);
    if world {
        findings.red(
            subject,
            format!("every user can read {path}"),
            &format!("chmod 600 {path}"),
        );
    } else if mode & 0o040 != 0 {
        let message = format!(
            "uid {} and the group {} can read {path}",
            found.uid(),
            found.gid()
        );
        findings.yellow(
            subject,
            message,
            "chmod g-r it, unless the group has no other member than the keyholder",
        );
    } else if has_acl(key) {
        let message = format!("{path} has an access list besides its mode");
        findings.yellow(
            subject,
            message,
            &format!("`getfacl {path}` says who can read it; `setfacl -b` takes it away"),
        );
    } else {
        let message = format!("only uid {} and root can read {path}", found.uid());
        findings.green(subject, message);
    }
}

fn has_acl(path: &Path) -> bool {
    let mut value = [0_u8; 4096];
    rustix::fs::getxattr(path, "system.posix_acl_access", &mut value).is_ok_and(|length| length > 0)
}

/// Whoever may write one of the directories can put another key there.
fn replacers(subject: &str, key: &Path, findings: &mut Findings) {
    let open = directories(key).find(|dir| bits(dir, 0o022) != 0 && bits(dir, 0o1000) == 0);
    match open {
        None => findings.green(subject, "nobody else can replace it"),
        Some(dir) => {
            let message = format!("others may write to {} and replace it", dir.display());
            findings.red(subject, message, &format!("chmod go-w {}", dir.display()));
        }
    }
}

/// The directories above a file, from the nearest to the root.
fn directories(file: &Path) -> impl Iterator<Item = &Path> {
    file.ancestors()
        .skip(1)
        .filter(|dir| !dir.as_os_str().is_empty())
}

fn bits(path: &Path, mask: u32) -> u32 {
    fs::metadata(path).map_or(0, |found| found.mode() & mask)
}

fn in_web_root(path: &Path) -> bool {
    let named = path
        .components()
        .any(|part| WEB_NAMES.iter().any(|name| part.as_os_str() == *name));
    named || WEB_ROOTS.iter().any(|root| path.starts_with(root))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::Colour;
    use super::*;

    fn colours(mode: u32, dir_mode: u32) -> Vec<Colour> {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("keys");
        let key = inner.join("k");
        fs::create_dir(&inner).unwrap();
        fs::write(&key, "").unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap()
        };
        set(dir.path(), 0o755);
        set(&inner, dir_mode);
        set(&key, mode);
        let mut findings = Findings::default();
        readers("key", &key, &mut findings);
        replacers("key", &key, &mut findings);
        findings.0.iter().map(|line| line.colour).collect()
    }

    #[test]
    fn a_key_is_judged_by_its_mode_and_by_the_directories_above_it() {
        assert_eq!(colours(0o600, 0o700), [Colour::Green, Colour::Green]);
        assert_eq!(colours(0o640, 0o700), [Colour::Yellow, Colour::Green]);
        assert_eq!(colours(0o644, 0o755), [Colour::Red, Colour::Green]);
        // Nobody else gets as far as the file.
        assert_eq!(colours(0o604, 0o700), [Colour::Green, Colour::Green]);
        assert_eq!(colours(0o600, 0o777), [Colour::Green, Colour::Red]);
        assert_eq!(colours(0o600, 0o1777), [Colour::Green, Colour::Green]);
    }

    #[test]
    fn web_roots_are_known_by_place_and_by_name() {
        for path in [
            "/home/bitrix/www/upload/client.key",
            "/var/www/a",
            "/home/shop/public_html/k",
        ] {
            assert!(in_web_root(Path::new(path)), "{path}");
        }
        for path in [
            "/etc/priorgate-keys/client.key",
            "/var/www2/a",
            "/home/bitrix/keys/k",
        ] {
            assert!(!in_web_root(Path::new(path)), "{path}");
        }
    }
}
