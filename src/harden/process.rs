//! What a process gives up by itself: core files, being looked into, new privileges, capabilities.
//!
//! Root keeps nothing either: a gate that is started as root (tests, a demo in a container) is uid 0 without a
//! capability, and reads what belongs to uid 0. Whatever needs a capability (a port below 1024, a socket's group, the
//! limit of open files) comes before this.

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Numbers of capabilities that are asked for: the kernel has 41, and refuses a number that it does not know.
const CAPABILITIES: u32 = 64;

/// One step that did not work.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) what: &'static str,
    pub(super) source: Errno,
}

/// Gives everything up. What did not work is told, and the rest is done all the same.
pub(super) fn give_up() -> Vec<Failed> {
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // The bounding set first: it takes a capability to give one up.
    let steps = [
        ("core files", setrlimit(Resource::Core, nothing)),
        ("dumpable", not_dumpable()),
        ("new privileges", set_no_new_privs(true)),
        ("bounding set", empty_bounding_set()),
        ("ambient capabilities", clear_ambient()),
        ("capabilities", no_capabilities()),
    ];
    steps
        .into_iter()
        .filter_map(|(what, result)| result.err().map(|source| Failed { what, source }))
        .collect()
}

/// No core, and nothing for others of this user to look at below `/proc`.
pub(super) fn not_dumpable() -> rustix::io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// A process without CAP_SETPCAP keeps its bounding set, which gives nothing to one that may gain no privileges.
fn empty_bounding_set() -> rustix::io::Result<()> {
    if !capabilities(None)?
        .effective
        .contains(CapabilitySet::SETPCAP)
    {
        return Ok(());
    }
    for number in 0..CAPABILITIES {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn clear_ambient() -> rustix::io::Result<()> {
    match clear_ambient_capability_set() {
        // Before Linux 4.3 there are none.
        Err(Errno::INVAL) => Ok(()),
        result => result,
    }
}

fn no_capabilities() -> rustix::io::Result<()> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    // A unit that leaves none may have taken the call to give them up as well.
    if capabilities(None)? == none {
        return Ok(());
    }
    set_capabilities(None, none)
}
