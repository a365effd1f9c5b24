//! Who is who in a scenario. `bank.test` is the name that the gate expects.

use super::bank::{Bank, Demand, Session, Speaks};
use super::gate::{Gate, Setup};
use super::pki::{Ca, replace};

/// The CA of the bank, and the CA that the bank asks clients for.
pub(crate) struct World {
    pub(crate) bank_ca: Ca,
    pub(crate) client_ca: Ca,
}

impl World {
    /// Deadlines that a scenario can wait for.
    pub(crate) const SHORT: &str = "timeouts: {connect: 2s, response: 1s, total: 3s}";

    pub(crate) fn new() -> Self {
        Self {
            bank_ca: Ca::new("bank ca"),
            client_ca: Ca::new("client ca"),
        }
    }

    /// A bank that is what it should be, but for what its sessions do.
    pub(crate) fn bank(
        &self,
        speaks: Speaks,
        handle: impl Fn(Session) + Send + Sync + 'static,
    ) -> Bank {
        let server = self.bank_ca.server("bank.test");
        Bank::start(&server, &Demand::Of(&self.client_ca), speaks, handle)
    }

    /// A bank that answers every request.
    pub(crate) fn good_bank(&self) -> Bank {
        self.bank(Speaks::Tls13, Session::serve)
    }

    /// The gate's files and configuration towards a port.
    pub(crate) fn setup(&self, port: u16) -> Setup {
        let setup = Setup::new(port);
        replace(&setup.path().join("bank-ca.pem"), &self.bank_ca.pem());
        self.client_ca.client("shop").write(setup.path(), "client");
        setup
    }

    pub(crate) fn gate(&self, port: u16) -> Gate {
        self.setup(port).with(Self::SHORT).start()
    }
}
