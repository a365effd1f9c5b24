//! Private keys on disk: who can read them, who can replace them, and whether a web server might hand them out.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::{Findings, credentials};
use crate::config::{Config, Hardening, KeySource, Listen, Transport};
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

/// `root` is `/`: beneath it are the units that load credentials.
pub(super) fn look(config: &Config, root: &Path, findings: &mut Findings) {
    let own = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    for bank in &config.banks {
        if let Transport::Tls(tls) = &bank.transport {
            let subject = format!("{}: private key", bank.name);
            match &tls.key {
                KeySource::Credential(name) => {
                    credentials::look(root, own.as_deref(), &subject, name, findings);
                }
                KeySource::File(file) => {
                    readers(&subject, file, findings);
                    owner(&subject, file, config, findings);
                    replacers(&subject, file, findings);
                }
            }
        }
    }
    let needs = GateNeeds::of(config);
    for file in needs.keys.iter().chain(&needs.read) {
        if in_web_root(file) || in_web_root(&real(file)) {
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

/// Who can read it.
pub(super) fn readers(subject: &str, key: &Path, findings: &mut Findings) {
    let Ok(found) = fs::metadata(key) else {
        findings.yellow(
            subject,
            format!("{} cannot be looked at", key.display()),
            "run doctor as root",
        );
        return;
    };
    let (mode, path) = (found.mode() & 0o777, key.display());
    let reached = real(key);
    let world = mode & 0o004 != 0 && directories(&reached).all(|dir| bits(dir, 0o001) != Some(0));
    if world {
        findings.red(
            subject,
            format!("every user can read {path}"),
            &format!("chmod 600 {path}"),
        );
    } else if has_acl(key) {
        // Before the group's bits, which are the list's mask then.
        let message = format!("{path} has an access list besides its mode");
        findings.yellow(
            subject,
            message,
            &format!("`getfacl {path}` says who can read it; `setfacl -b` takes it away"),
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
    } else {
        let message = format!("only uid {} and root can read {path}", found.uid());
        findings.green(subject, message);
    }
}

fn has_acl(path: &Path) -> bool {
    let mut value = [0_u8; 4096];
    rustix::fs::getxattr(path, "system.posix_acl_access", &mut value).is_ok_and(|length| length > 0)
}

/// Whose it is: a caller of the gate has no business with it.
fn owner(subject: &str, key: &Path, config: &Config, findings: &mut Findings) {
    let Ok(found) = fs::metadata(key) else {
        return;
    };
    let uid = found.uid();
    let calls = |listen: &Listen| match listen {
        Listen::Unix { callers, .. } => callers.contains(&uid),
        Listen::Tcp { access, .. } => access.callers().is_some_and(|all| all.contains(&uid)),
    };
    if uid != 0
        && config
            .banks
            .iter()
            .any(|bank| bank.listen.iter().any(calls))
    {
        findings.red(
            subject,
            format!("{} belongs to uid {uid}, which is a caller", key.display()),
            "chown it to root or to the keyholder's user",
        );
    }
}

/// Whoever may write to one of the directories, or owns one, can put another key there: above the file as it is named, and
/// above what a link leads to.
pub(super) fn replacers(subject: &str, key: &Path, findings: &mut Findings) {
    let owner = fs::metadata(key).map_or(0, |found| found.uid());
    let reached = real(key);
    let mut unseen = None;
    for dir in directories(key).chain(directories(&reached)) {
        let Ok(found) = fs::metadata(dir) else {
            unseen = Some(dir);
            continue;
        };
        let (shown, mode) = (dir.display(), found.mode());
        if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            let message = format!("others may write to {shown} and replace it");
            return findings.red(subject, message, &format!("chmod go-w {shown}"));
        }
        if found.uid() != 0 && found.uid() != owner {
            let message = format!(
                "{shown} belongs to uid {}, which may replace it",
                found.uid()
            );
            return findings.red(subject, message, &format!("chown root {shown}"));
        }
    }
    match unseen {
        Some(dir) => findings.yellow(
            subject,
            format!("{} cannot be looked at", dir.display()),
            "run doctor as root",
        ),
        None => findings.green(subject, "nobody else can replace it"),
    }
}

/// What a path leads to, links followed, as far as this user may look.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The directories above a file, from the nearest to the root.
fn directories(file: &Path) -> impl Iterator<Item = &Path> {
    file.ancestors()
        .skip(1)
        .filter(|dir| !dir.as_os_str().is_empty())
}

/// `None` when it cannot be looked at.
fn bits(path: &Path, mask: u32) -> Option<u32> {
    Some(fs::metadata(path).ok()?.mode() & mask)
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
    fn a_directory_of_somebody_else_and_one_behind_a_link_are_seen() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (theirs, open) = (dir.path().join("theirs"), dir.path().join("open"));
        for place in [&theirs, &open] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("k"), "").unwrap();
            fs::set_permissions(place.join("k"), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(open.join("k"), &link).unwrap();
        let colour = |key: &Path| {
            let mut findings = Findings::default();
            replacers("key", key, &mut findings);
            findings.0[0].colour
        };
        assert_eq!(colour(&theirs.join("k")), Colour::Green);
        std::os::unix::fs::chown(&theirs, Some(33), None).unwrap();
        assert_eq!(colour(&theirs.join("k")), Colour::Red);
        assert_eq!(colour(&link), Colour::Green);
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(colour(&link), Colour::Red);
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
