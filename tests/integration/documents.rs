//! Holds the documents to the code: what they list is what there is.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use priorgate::policy::problem::{self, Code};

fn read(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names in every `[dependencies]`-like table of a `Cargo.toml`. Ours writes one a line.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            inside = table.trim_end().ends_with("dependencies]");
        } else if let Some((name, _)) = line
            .split_once('=')
            .filter(|_| inside && !line.starts_with('#'))
        {
            // `name.workspace = true` would be a name as well.
            found.insert(name.trim().split('.').next().unwrap_or_default().to_owned());
        }
    }
    found
}

/// The names that begin a line of the list: "- `name`: why".
fn reasons(document: &str) -> BTreeSet<String> {
    document
        .lines()
        .filter_map(|line| line.strip_prefix("- `")?.split_once("`: "))
        .filter(|(_, reason)| reason.len() > 20)
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn every_direct_dependency_has_its_line_of_reason() {
    let manifest = dependencies(&read("Cargo.toml"));
    let listed = reasons(&read("docs/dependencies.md"));
    assert!(
        manifest.contains("rustls") && manifest.contains("tempfile"),
        "{manifest:?}"
    );
    let missing: Vec<_> = manifest.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&manifest).collect();
    assert!(
        missing.is_empty(),
        "no reason in docs/dependencies.md: {missing:?}"
    );
    assert!(
        gone.is_empty(),
        "in docs/dependencies.md, but no dependency: {gone:?}"
    );
}

#[test]
fn a_dependency_without_a_reason_is_noticed() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\n# why = 1\na = \"1\"\n\
                    b.version = \"2\"\n\n[lints.rust]\nc = \"warn\"\n";
    let found = dependencies(manifest);
    assert_eq!(found, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    let listed = reasons("- `a`: a sentence that says why it is here.\n- `b`: no.\n");
    assert_eq!(found.difference(&listed).collect::<Vec<_>>(), ["b"]);
}

/// The rows of the README's error table: status, code, outcome.
fn error_rows(document: &str) -> Vec<[String; 3]> {
    document
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let row = [
                cells.next()?,
                cells.next()?.trim_matches('`'),
                cells.next()?,
            ];
            row[0].parse::<u16>().ok()?;
            Some(row.map(ToOwned::to_owned))
        })
        .collect()
}

#[test]
fn the_readme_explains_every_error_and_no_other() {
    let mut expected: Vec<_> = problem::ALL
        .iter()
        .map(|code| {
            let row = code.row();
            let outcome = match code {
                // The one code with two outcomes: its row holds the worse one.
                Code::BankTimeout => "not_sent or unknown",
                _ => row.outcome.as_str(),
            };
            [
                row.status.to_string(),
                row.code.to_owned(),
                outcome.to_owned(),
            ]
        })
        .collect();
    let mut rows = error_rows(&read("README.md"));
    rows.sort();
    expected.sort();
    assert_eq!(rows, expected);
}

#[test]
fn the_keyholders_drop_ins_keep_each_others_credentials_in_the_order_of_their_names() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let mut files: Vec<PathBuf> = fs::read_dir(root.join("drop-ins"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| read(path.to_str().unwrap()).contains("\nLoadCredential"))
        .collect();
    files.sort();
    assert_eq!(files.len(), 2, "{files:?}");
    files.insert(0, root.join("priorgate-keyholder.service"));
    let mut held = BTreeSet::new();
    for file in files {
        let text = read(file.to_str().unwrap());
        let lines = text
            .lines()
            .filter(|line| line.starts_with("LoadCredential"));
        for (_, value) in lines.filter_map(|line| line.split_once('=')) {
            // An empty one empties the whole list.
            match value.split_once(':') {
                Some((name, _)) => drop(held.insert(name.to_owned())),
                None => held.clear(),
            }
        }
    }
    assert_eq!(
        held.into_iter().collect::<Vec<_>>(),
        ["audit.key", "client.key"]
    );
}
