//! Processes, as `/proc` tells of them.

use std::fs;

/// The state and the parent: fields 3 and 4 of proc_pid_stat(5), behind the name in brackets.
fn stat(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// Whether there is such a process, and it runs.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != "Z" && state != "X")
}

pub(crate) fn parent(pid: u32) -> Option<u32> {
    stat(pid).map(|(_, parent)| parent)
}

/// The living children of a process, oldest first.
pub(crate) fn children(of: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    let mut found: Vec<u32> = pids
        .filter(|pid| parent(*pid) == Some(of) && is_alive(*pid))
        .collect();
    found.sort_unstable();
    found
}
