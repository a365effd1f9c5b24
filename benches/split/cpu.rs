//! What processes have used of the processors, in nanoseconds, as the scheduler counts it.

use std::fs;

/// The time of all living threads of a process. Its threads must not end between two looks.
pub(crate) fn of(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let times = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    times.sum()
}

/// The first living child of a process.
pub(crate) fn child(of: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    let mut pids: Vec<u32> = processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| parent(*pid) == Some(of))
        .collect();
    pids.sort_unstable();
    pids.first().copied()
}

/// Field 4 of proc_pid_stat(5), behind the name in brackets.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    fields.nth(1)?.parse().ok()
}

/// Several processes, each with its part.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pids {
    /// Who speaks TLS to the bank.
    pub(crate) gate: u32,
    /// The keyholder's two; `None` where the key is in the gate.
    pub(crate) keyholder: Option<(u32, u32)>,
    pub(crate) bank: u32,
}

/// Nanoseconds of each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) gate: u64,
    pub(crate) monitor: u64,
    pub(crate) signer: u64,
    pub(crate) bank: u64,
}

impl Pids {
    pub(crate) fn times(&self) -> Times {
        Times {
            gate: of(self.gate),
            monitor: self.keyholder.map_or(0, |(monitor, _)| of(monitor)),
            signer: self.keyholder.map_or(0, |(_, signer)| of(signer)),
            bank: of(self.bank),
        }
    }
}

impl Times {
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            gate: self.gate.saturating_sub(before.gate),
            monitor: self.monitor.saturating_sub(before.monitor),
            signer: self.signer.saturating_sub(before.signer),
            bank: self.bank.saturating_sub(before.bank),
        }
    }
}
