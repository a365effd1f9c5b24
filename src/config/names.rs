//! Names of users and groups, looked up once.
//!
//! A confined process cannot open the user database (its files are not granted, and a rule for one of them would follow
//! the inode that `useradd` replaces). So what the start has looked up is kept, and a reload takes it from here.

use std::collections::BTreeMap;

/// What was looked up, by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Names {
    users: BTreeMap<String, u32>,
    groups: BTreeMap<String, u32>,
    /// Nothing more can be looked up.
    closed: bool,
}

/// Why a name has no number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum NoNumber {
    /// There is none of that name.
    Unknown,
    /// It was not looked up before the process was confined.
    Closed,
    /// The user database does not answer.
    Failed(String),
}

impl Names {
    /// The same names, and no others from now on.
    pub(super) fn only(&self) -> Self {
        Self {
            closed: true,
            ..self.clone()
        }
    }

    /// The uid of a user.
    pub(super) fn user(&mut self, name: &str) -> Result<u32, NoNumber> {
        let look_up = |name: &str| {
            nix::unistd::User::from_name(name).map(|found| found.map(|user| user.uid.as_raw()))
        };
        number(&mut self.users, self.closed, name, look_up)
    }

    /// The gid of a group.
    pub(super) fn group(&mut self, name: &str) -> Result<u32, NoNumber> {
        let look_up = |name: &str| {
            nix::unistd::Group::from_name(name).map(|found| found.map(|group| group.gid.as_raw()))
        };
        number(&mut self.groups, self.closed, name, look_up)
    }
}

fn number(
    known: &mut BTreeMap<String, u32>,
    closed: bool,
    name: &str,
    look_up: impl Fn(&str) -> nix::Result<Option<u32>>,
) -> Result<u32, NoNumber> {
    if let Some(number) = known.get(name) {
        return Ok(*number);
    }
    if closed {
        return Err(NoNumber::Closed);
    }
    match look_up(name) {
        Ok(Some(number)) => {
            known.insert(name.to_owned(), number);
            Ok(number)
        }
        Ok(None) => Err(NoNumber::Unknown),
        Err(error) => Err(NoNumber::Failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_list_gives_what_it_has_and_looks_nothing_up() {
        let mut names = Names::default();
        assert_eq!(names.user("root"), Ok(0));
        assert_eq!(names.user("no-such-user"), Err(NoNumber::Unknown));
        let mut closed = names.only();
        assert_eq!(closed.user("root"), Ok(0));
        assert_eq!(closed.user("daemon"), Err(NoNumber::Closed));
        assert_eq!(closed.group("root"), Err(NoNumber::Closed));
    }
}
