//! The needs of a few configurations, and what a second one needs beyond the first.

use super::*;
use crate::config::check::parse;

const BANK: &str = "banks: [{name: b, url: \"https://api.bank.test\", trust: {ca_file: ca/bank.pem}, identity: \
     {cert_file: own/client.crt, key_file: /keys/client.key}, headers: {set_files: [{name: X-Key, file: secret/key}]}, \
     listen: [{unix: /run/p/b.sock, callers: [33]}, {tcp: \"127.0.0.1:9180\", token_files: [tokens/php]}], routes: \
     [{name: r, method: GET, path: /}]}]\n";

fn needs(text: &str) -> GateNeeds {
    GateNeeds::of(&parse(Path::new("/etc/p/config.yaml"), text).unwrap())
}

fn paths(list: &[&str]) -> BTreeSet<PathBuf> {
    list.iter().map(PathBuf::from).collect()
}

/// A file system without links.
fn plain(_: &Path) -> Option<PathBuf> {
    None
}

#[test]
fn a_bank_needs_its_files_its_port_and_the_resolver() {
    let needs = needs(BANK);
    let readable = paths(&[
        "/etc/p",
        "/etc/p/ca",
        "/etc/p/own",
        "/etc/p/secret",
        "/etc/p/tokens",
    ]);
    assert_eq!(needs.readable(plain), readable);
    assert_eq!(needs.sockets, paths(&["/run/p"]));
    assert_eq!(needs.connect_tcp, BTreeSet::from([53, 443]));
    assert!(needs.names && needs.write.is_empty() && needs.connect_unix.is_empty());
    assert_eq!(needs.keys, paths(&["/keys/client.key"]));
}

#[test]
fn tokens_are_read_again_whether_or_not_the_listener_asks_for_users_too() {
    let both = BANK.replace("token_files:", "callers: [33], token_files:");
    assert_eq!(needs(&both).read, needs(BANK).read);
}

#[test]
fn an_address_needs_no_resolver_and_no_dns() {
    let needs = needs(&BANK.replace("api.bank.test", "192.0.2.7:9345"));
    assert_eq!(needs.connect_tcp, BTreeSet::from([9345]));
    assert!(!needs.names);
}

#[test]
fn journal_callbacks_and_admin_need_their_places() {
    let tail = "journal: {sqlite: /var/lib/p/journal.db}\nadmin: {unix: /run/p-admin/a.sock}\ncallbacks: [{name: c, \
        listen: [{unix: /run/c/c.sock}], path: /cb, signature: {header: X-S, keys: [{id: k, algorithm: ed25519, file: \
        pins/k.pem}]}, deliver: {url: \"http://127.0.0.1:8888/x\", secret_files: [secret/d]}}, {name: d, listen: \
        [{tcp: \"127.0.0.1:9181\"}], path: /cb, signature: {header: X-S, keys: [{id: k, algorithm: ed25519, file: \
        pins/k.pem}]}, deliver: {url: /x, unix: /run/php/shop.sock, host: shop, secret_files: [secret/e]}}]\n";
    let needs = needs(&format!("{BANK}{tail}"));
    assert_eq!(needs.write, paths(&["/var/lib/p"]));
    assert_eq!(needs.sockets, paths(&["/run/c", "/run/p", "/run/p-admin"]));
    assert_eq!(needs.connect_unix, paths(&["/run/php/shop.sock"]));
    assert_eq!(needs.connect_tcp, BTreeSet::from([53, 443, 8888]));
    let readable = needs.readable(plain);
    assert!(readable.contains(Path::new("/etc/p/pins")), "{readable:?}");
    assert!(readable.contains(Path::new("/var/lib/p")), "{readable:?}");
}

#[test]
fn what_a_reload_needs_beyond_the_start_is_named() {
    let old = needs(BANK);
    let beyond = |from: &str, to: &str| needs(&BANK.replace(from, to)).beyond(&old, plain);
    assert_eq!(beyond("own/client.crt", "own/other.crt"), None);
    assert_eq!(beyond("own/client.crt", "own/deeper/client.crt"), None);
    assert_eq!(beyond("/keys/client.key", "/keys2/client.key"), None);
    // A token beside callers is read again, too.
    let both = needs(&BANK.replace("token_files: [", "callers: [33], token_files: ["));
    assert_eq!(both.read, old.read);
    for (from, to, named) in [
        ("own/client.crt", "/srv/own/client.crt", "/srv/own"),
        ("/run/p/b.sock", "/run/q/b.sock", "/run/q"),
        ("api.bank.test", "api.bank.test:8443", "port 8443"),
    ] {
        let told = beyond(from, to).unwrap();
        assert!(told.contains(named), "{told}");
    }
    let address = needs(&BANK.replace("api.bank.test", "192.0.2.7"));
    assert!(old.beyond(&address, plain).unwrap().contains("a name"));
}

#[test]
fn a_link_opens_the_directory_that_it_leads_to_and_a_key_beneath_one_is_found() {
    let inside = BANK.replace("/keys/client.key", "keys/client.key");
    let exposed = needs(&inside).exposed_keys(plain);
    let (key, root) = ("/etc/p/keys/client.key", "/etc/p");
    assert_eq!(exposed, [(PathBuf::from(key), PathBuf::from(root))]);

    let needs = needs(BANK);
    assert_eq!(needs.exposed_keys(plain), []);
    let linked = |path: &Path| match path.to_str() {
        Some("/etc/p/own/client.crt") => Some(PathBuf::from("/keys/live/client.crt")),
        Some("/keys/client.key") => Some(PathBuf::from("/keys/live/client.key")),
        _ => None,
    };
    assert!(needs.readable(linked).contains(Path::new("/keys/live")));
    assert_eq!(needs.exposed_keys(linked).len(), 1);
}
