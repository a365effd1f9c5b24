//! Landlock: which files, ports and processes are left to a process.
//!
//! It owns the lists of rights, by name, up to the newest interface that is tested ([`TESTED`]): a right that a later
//! kernel adds is not handled by accident. The file rules of the first interface are asked for without compromise,
//! everything later as far as the kernel has it. Applies to the calling thread: call it before there is another.

use std::path::Path;

use landlock::{
    ABI, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};

use super::needs::GateNeeds;
use super::resolver_files;
use super::rules::real;

/// The newest interface whose rights are used and tested. 7 adds only the kernel's log, which is on by default.
const TESTED: i32 = 6;

/// What the kernel said when the rules were set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct InForce {
    /// The kernel's interface, as far as we go along with it.
    pub(super) abi: i32,
    /// File rules.
    pub(super) files: bool,
    /// Rules for TCP ports (from interface 4).
    pub(super) ports: bool,
    /// Signals and abstract sockets stay inside (from interface 6).
    pub(super) scopes: bool,
}

/// Who is confined.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whom<'n> {
    Gate(&'n GateNeeds),
    /// The monitor starts signers, which open the keys: files stay open to it, the network does not.
    Monitor,
    /// No file, no port, nobody.
    Signer,
}

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
pub(super) enum LandlockError {
    /// Not built in, or not among the `lsm=` of the kernel's command line.
    #[error(
        "this kernel offers no Landlock (Linux 5.13 or later, with landlock in its list of LSMs)"
    )]
    NotOffered,
    /// The kernel took part of it or nothing.
    #[error("Landlock")]
    Rules(#[from] RulesetError),
}

/// Sets the rules, for good.
pub(super) fn restrict(whom: Whom<'_>, abstract_sockets: bool) -> Result<InForce, LandlockError> {
    let most = pretended().unwrap_or(TESTED).min(TESTED);
    if most < 1 {
        return Err(LandlockError::NotOffered);
    }
    let wanted = Wanted::up_to(most, whom, abstract_sockets);
    if wanted.is_empty() {
        // A monitor, whose files stay open, on a kernel that knows rules of files alone.
        return Ok(InForce {
            abi: most,
            ..InForce::default()
        });
    }
    let mut rules = Ruleset::default();
    if !wanted.first.is_empty() {
        rules = rules
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(wanted.first)
            .map_err(|_| LandlockError::NotOffered)?;
    }
    rules = rules.set_compatibility(CompatLevel::BestEffort);
    if !wanted.later.is_empty() {
        rules = rules.handle_access(wanted.later)?;
    }
    if !wanted.ports.is_empty() {
        rules = rules.handle_access(wanted.ports)?;
    }
    if !wanted.scopes.is_empty() {
        rules = rules.scope(wanted.scopes)?;
    }
    let mut created = rules.create()?;
    if let Whom::Gate(needs) = whom {
        created = wanted.grant(created, needs)?;
    }
    let status = created.restrict_self()?;
    let offered = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as i32,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    };
    let abi = offered.min(most);
    let any = status.ruleset != RulesetStatus::NotEnforced && abi >= 1;
    Ok(InForce {
        abi,
        files: any && !wanted.first.is_empty(),
        ports: any && abi >= ABI::V4 as i32,
        scopes: any && abi >= ABI::V6 as i32,
    })
}

struct Wanted {
    /// Rights of files and directories that must be there.
    first: BitFlags<AccessFs>,
    /// And those of later interfaces.
    later: BitFlags<AccessFs>,
    ports: BitFlags<AccessNet>,
    scopes: BitFlags<Scope>,
}

impl Wanted {
    fn up_to(abi: i32, whom: Whom<'_>, abstract_sockets: bool) -> Self {
        let first = AccessFs::Execute
            | AccessFs::WriteFile
            | AccessFs::ReadFile
            | AccessFs::ReadDir
            | AccessFs::RemoveDir
            | AccessFs::RemoveFile
            | AccessFs::MakeChar
            | AccessFs::MakeDir
            | AccessFs::MakeReg
            | AccessFs::MakeSock
            | AccessFs::MakeFifo
            | AccessFs::MakeBlock
            | AccessFs::MakeSym;
        let later = [
            (ABI::V2, AccessFs::Refer),
            (ABI::V3, AccessFs::Truncate),
            (ABI::V5, AccessFs::IoctlDev),
        ];
        let later = later
            .into_iter()
            .filter(|(since, _)| *since as i32 <= abi)
            .fold(BitFlags::EMPTY, |all, (_, right)| all | right);
        let ports = if abi >= ABI::V4 as i32 {
            AccessNet::BindTcp | AccessNet::ConnectTcp
        } else {
            BitFlags::EMPTY
        };
        let scopes = match (abi >= ABI::V6 as i32, abstract_sockets) {
            (false, _) => BitFlags::EMPTY,
            (true, true) => Scope::Signal.into(),
            (true, false) => Scope::AbstractUnixSocket | Scope::Signal,
        };
        let files = !matches!(whom, Whom::Monitor);
        let only = |rights: BitFlags<AccessFs>| if files { rights } else { BitFlags::EMPTY };
        Self {
            first: only(first),
            later: only(later),
            ports,
            scopes,
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_empty()
            && self.later.is_empty()
            && self.ports.is_empty()
            && self.scopes.is_empty()
    }

    fn grant(
        &self,
        mut rules: RulesetCreated,
        needs: &GateNeeds,
    ) -> Result<RulesetCreated, RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        // A rename within a directory is a removal and a making; `Refer` would be for one across directories.
        let write = read
            | AccessFs::WriteFile
            | AccessFs::MakeReg
            | AccessFs::RemoveFile
            | AccessFs::Truncate;
        let sockets = AccessFs::MakeSock | AccessFs::RemoveFile;
        for directory in needs.readable(real) {
            rules = self.path(rules, &directory, read)?;
        }
        for directory in &needs.write {
            rules = self.path(rules, directory, write)?;
        }
        for directory in &needs.sockets {
            rules = self.path(rules, directory, sockets)?;
        }
        if needs.names {
            for file in resolver_files() {
                rules = self.path(rules, &file, AccessFs::ReadFile.into())?;
            }
        }
        if !self.ports.is_empty() {
            for port in &needs.connect_tcp {
                rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
            }
        }
        Ok(rules)
    }

    /// What is not there cannot be granted, and nobody misses it until it is: then a reload says so.
    fn path(
        &self,
        rules: RulesetCreated,
        path: &Path,
        rights: BitFlags<AccessFs>,
    ) -> Result<RulesetCreated, RulesetError> {
        match PathFd::new(path) {
            Ok(opened) => {
                let rights = rights & (self.first | self.later);
                rules.add_rule(PathBeneath::new(opened, rights))
            }
            Err(_) => Ok(rules),
        }
    }
}

#[cfg(not(feature = "failpoints"))]
fn pretended() -> Option<i32> {
    None
}

/// A test build can be told that the kernel is older than it is: 0 is one without Landlock.
#[cfg(feature = "failpoints")]
fn pretended() -> Option<i32> {
    std::env::var("PRIORGATE_LANDLOCK_ABI").ok()?.parse().ok()
}
