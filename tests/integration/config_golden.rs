//! Configurations through the real binary: each mistake has its file, its exact words and its exit code.
//!
//! `UPDATE_GOLDEN=1 cargo test config_golden` writes the words anew; read the difference before committing it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn directory(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/config")
        .join(kind)
}

fn files(kind: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(directory(kind))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    found.sort();
    found
}

fn check(config: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_priorgate"))
        .args(["check", "--config"])
        .arg(config)
        .output()
        .unwrap()
}

#[test]
fn every_mistake_is_told_in_its_own_words_with_exit_code_78() {
    let bad = files("bad");
    assert!(bad.len() >= 25, "only {} mistakes", bad.len());
    let mut wrong = Vec::new();
    for config in bad {
        let output = check(&config);
        let said = String::from_utf8(output.stdout).unwrap();
        let said = said.replace(directory("bad").to_str().unwrap(), "DIR");
        let golden = config.with_extension("stderr");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &said).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if output.status.code() != Some(78) || said != expected || said.is_empty() {
            wrong.push(format!(
                "{}: exit code {:?}\n--- expected\n{expected}--- said\n{said}",
                config.display(),
                output.status.code()
            ));
        }
        assert!(
            !said.contains("hunter2"),
            "{} gives a secret away",
            config.display()
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_two_mistakes_are_told_in_the_same_words() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        // The files are being written by the test beside this one.
        return;
    }
    let mut told: Vec<String> = files("bad")
        .iter()
        .map(|config| {
            let golden = fs::read_to_string(config.with_extension("stderr")).unwrap();
            // The place counts: the same rule may be broken by two keys.
            golden.replace(config.file_name().unwrap().to_str().unwrap(), "")
        })
        .collect();
    let all = told.len();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), all);
}

#[test]
fn every_good_configuration_is_loaded() {
    let good = files("ok");
    assert!(good.len() >= 3);
    for config in good {
        priorgate::config::Config::load(&config).unwrap();
    }
}

#[test]
fn the_shipped_example_is_loaded_and_says_the_defaults_as_they_are() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yaml.example");
    let written = priorgate::config::Config::load(&example).unwrap();
    let minimal = priorgate::config::Config::load(&directory("ok").join("minimal.yaml")).unwrap();
    let (written, minimal_bank) = (&written.banks[0], &minimal.banks[0]);
    assert_eq!(written.timeouts, minimal_bank.timeouts);
    assert_eq!(written.limits, minimal_bank.limits);
    assert_eq!(written.pool, minimal_bank.pool);
    assert_eq!(written.breaker, minimal_bank.breaker);
    assert_eq!(
        (written.dns.refresh, written.dns.stale),
        (minimal_bank.dns.refresh, minimal_bank.dns.stale)
    );
}

#[test]
fn the_readmes_configuration_is_loaded() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let block = readme
        .split("```yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    fs::write(&config, block).unwrap();
    priorgate::config::Config::load(&config).unwrap();
}

#[test]
fn the_schema_is_json_and_knows_the_keys() {
    let output = Command::new(env!("CARGO_BIN_EXE_priorgate"))
        .arg("schema")
        .output()
        .unwrap();
    assert!(output.status.success());
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema.pointer("/properties/banks").is_some());
    assert!(schema.pointer("/$defs/Route/properties/path").is_some());
    assert!(schema.pointer("/properties/audit").is_some());
    assert!(
        schema
            .pointer("/$defs/Identity/properties/sign_rate")
            .is_some()
    );
    assert!(schema.to_string().contains("best-effort"));
}
