//! seccomp: the system calls that are left to a process.
//!
//! The lists are those of a process that was watched through everything it does (docs/architecture.md), by name, for the
//! machines that we build for. Three filters for the gate, since one filter has one answer and the kernel takes the
//! strictest: what nobody calls by mistake kills, `clone3` does not exist (glibc then uses `clone`, whose flags can be
//! seen), and everything else that is not on the list fails with EPERM, which ends up as an error in our log. The signer
//! dies of whatever is not on its list.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub(super) enum SeccompError {
    /// The lists are for x86_64 and aarch64.
    #[error("no list of system calls for this kind of machine")]
    Machine,
    /// A filter that cannot be written: a mistake of ours.
    #[error("a filter of system calls")]
    Filter(#[from] seccompiler::BackendError),
    /// The kernel did not take it.
    #[error("the kernel does not take a filter of system calls")]
    Refused(#[from] seccompiler::Error),
}

/// What rustix asks for the first time that it needs the vDSO (linux/prctl.h, since 6.4; libc has no name for it).
const PR_GET_AUXV: i32 = 0x4155_5856;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls of every role: memory, time, waiting, ending.
const COMMON: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sendto,
    libc::SYS_sigaltstack,
    libc::SYS_write,
];

/// And of the signer, besides: its listening form, and its checkpoint file.
const SIGNER: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_fdatasync,
    libc::SYS_getsockopt,
    // The state of checkpoints is read when its turn comes, not at the start.
    libc::SYS_pread64,
    libc::SYS_pwrite64,
];

/// And of the gate: the runtime, threads, SQLite, sockets, look-ups.
const GATE: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_clock_nanosleep,
    libc::SYS_connect,
    libc::SYS_dup,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_membarrier,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    // The keyholder that a gate started is its child.
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_writev,
];

/// The older names of some of them, which newer machines do not have.
#[cfg(target_arch = "x86_64")]
const GATE_OLDER: &[i64] = &[
    libc::SYS_access,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_stat,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const GATE_OLDER: &[i64] = &[];

/// A test build dies on demand (src/journal/failpoint.rs), and proves in its own process what is refused.
#[cfg(feature = "failpoints")]
const TESTS: &[i64] = &[libc::SYS_kill];
#[cfg(not(feature = "failpoints"))]
const TESTS: &[i64] = &[];

/// What has no business in a process that serves: whoever calls these is somebody else by now.
const DEADLY: &[i64] = &[
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_memfd_create,
    libc::SYS_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// The monitor starts signers, and needs execve for it.
fn deadly_for_the_monitor() -> impl Iterator<Item = i64> {
    let starts = [libc::SYS_execve, libc::SYS_execveat];
    DEADLY
        .iter()
        .copied()
        .filter(move |call| !starts.contains(call))
}

/// Filters the gate's calls, for good.
pub(super) fn gate() -> Result<(), SeccompError> {
    apply(
        DEADLY.iter().map(|call| (*call, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::KillProcess,
    )?;
    let clone3 = [(libc::SYS_clone3, Vec::new())].into();
    apply(clone3, SeccompAction::Allow, errno(libc::ENOSYS))?;
    let mut allowed: Rules = [COMMON, GATE, GATE_OLDER, TESTS]
        .concat()
        .into_iter()
        // An empty list of rules: whatever its arguments are.
        .map(|call| (call, Vec::new()))
        .collect();
    // Its answer is the one above: of two errors the later filter's would count.
    allowed.insert(libc::SYS_clone3, Vec::new());
    allowed.insert(libc::SYS_clone, threads()?);
    allowed.insert(libc::SYS_mmap, not_executable(2)?);
    allowed.insert(libc::SYS_mprotect, not_executable(2)?);
    allowed.insert(libc::SYS_prctl, prctl()?);
    let families = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    allowed.insert(libc::SYS_socket, one_of(0, &families)?);
    apply(allowed, errno(libc::EPERM), SeccompAction::Allow)
}

/// Filters the signer's calls, for good: anything else kills it.
pub(super) fn signer() -> Result<(), SeccompError> {
    let mut allowed: Rules = [COMMON, SIGNER]
        .concat()
        .into_iter()
        .map(|call| (call, Vec::new()))
        .collect();
    allowed.insert(libc::SYS_mmap, not_executable(2)?);
    // glibc grows the heap of a thread with it.
    allowed.insert(libc::SYS_mprotect, not_executable(2)?);
    // std looks at a descriptor before it closes it, in builds with debug assertions.
    allowed.insert(libc::SYS_fcntl, one_of(1, &[libc::F_GETFD])?);
    apply(allowed, SeccompAction::KillProcess, SeccompAction::Allow)
}

/// Takes from the monitor, and so from every signer, what neither needs. What a signer needs to load a key stays.
pub(super) fn monitor() -> Result<(), SeccompError> {
    let deadly = deadly_for_the_monitor().map(|call| (call, Vec::new()));
    apply(
        deadly.collect(),
        SeccompAction::Allow,
        SeccompAction::KillProcess,
    )?;
    let other = vec![SeccompRule::new(vec![compare(
        0,
        SeccompCmpOp::Ne,
        libc::AF_UNIX,
    )?])?];
    let sockets = [(libc::SYS_socket, other)].into();
    apply(sockets, SeccompAction::Allow, errno(libc::EPERM))
}

fn apply(
    rules: Rules,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<(), SeccompError> {
    let machine =
        TargetArch::try_from(std::env::consts::ARCH).map_err(|_| SeccompError::Machine)?;
    let program: BpfProgram = SeccompFilter::new(rules, otherwise, listed, machine)?.try_into()?;
    Ok(apply_filter(&program)?)
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

/// `clone` for a thread of this process: no process, no namespace.
fn threads() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let spaces = libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWUTS;
    let looked_at = u64::from((spaces | libc::CLONE_THREAD).cast_unsigned());
    let thread = compare(0, SeccompCmpOp::MaskedEq(looked_at), libc::CLONE_THREAD)?;
    Ok(vec![SeccompRule::new(vec![thread])?])
}

/// Memory that is never executable: no code is loaded or made after the start.
fn not_executable(argument: u8) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let bit = u64::from(libc::PROT_EXEC.cast_unsigned());
    let never = compare(argument, SeccompCmpOp::MaskedEq(bit), 0)?;
    Ok(vec![SeccompRule::new(vec![never])?])
}

/// Names of threads and mappings, and a look at what is in force; not what would take the confinement back.
fn prctl() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let harmless = [
        libc::PR_SET_NAME,
        libc::PR_GET_NAME,
        libc::PR_SET_VMA,
        libc::PR_GET_DUMPABLE,
        libc::PR_GET_NO_NEW_PRIVS,
        libc::PR_GET_SECCOMP,
        PR_GET_AUXV,
    ];
    one_of(0, &harmless)
}

fn one_of(argument: u8, values: &[i32]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values
        .iter()
        .map(|value| SeccompRule::new(vec![compare(argument, SeccompCmpOp::Eq, *value)?]))
        .collect()
}

/// The kernel reads these arguments as 32 bits; whatever a caller leaves above them does not count.
fn compare(
    argument: u8,
    how: SeccompCmpOp,
    value: i32,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    let value = u64::from(value.cast_unsigned());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_deadly_is_allowed() {
        for call in [COMMON, GATE, GATE_OLDER, SIGNER].concat() {
            assert!(!DEADLY.contains(&call), "{call}");
        }
        assert!(!deadly_for_the_monitor().any(|call| call == libc::SYS_execve));
        assert!(deadly_for_the_monitor().any(|call| call == libc::SYS_ptrace));
    }

    #[test]
    fn the_signer_can_open_nothing_and_make_no_socket() {
        let signer = [COMMON, SIGNER].concat();
        for call in [
            libc::SYS_openat,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_clone,
        ] {
            assert!(!signer.contains(&call), "{call}");
        }
    }
}
