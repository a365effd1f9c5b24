//! A service manager that holds the listening sockets: the gate takes over those that it has configured, and a restart
//! refuses nobody.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::client::Target;
use crate::support::gate::{Setup, me};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

const PATH: &str = "/installment/create";

/// What the manager holds.
struct Held {
    tcp: TcpListener,
    unix: UnixListener,
}

impl Held {
    fn new(setup: &Setup) -> Self {
        Self {
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            unix: UnixListener::bind(setup.path().join("gate.sock")).unwrap(),
        }
    }

    fn addr(&self) -> SocketAddr {
        self.tcp.local_addr().unwrap()
    }

    /// The command with both as descriptors 3 and 4, for the process `pid` (as the shell says it).
    fn pass(&self, to: &Command, pid: &str) -> Command {
        let script =
            format!("exec 3<&0 4<&1 </dev/null; LISTEN_FDS=2 LISTEN_PID={pid} exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script])
            .arg(to.get_program())
            .args(to.get_args())
            .stdin(Stdio::from(OwnedFd::from(self.tcp.try_clone().unwrap())))
            .stdout(Stdio::from(OwnedFd::from(self.unix.try_clone().unwrap())));
        command
    }
}

fn listening(world: &World, port: u16) -> (Setup, Held) {
    let setup = world.setup(port);
    let held = Held::new(&setup);
    let (addr, me) = (held.addr(), me());
    let setup = setup.listen(&[
        &format!("{{unix: gate.sock, callers: [{me}]}}"),
        &format!("{{tcp: \"{addr}\", callers: [{me}]}}"),
    ]);
    (setup, held)
}

#[test]
fn a_restart_under_load_fails_no_request() {
    let world = World::new();
    let bank = world.good_bank();
    let (setup, held) = listening(&world, bank.port());
    let mut gate = setup.start_with(|command| held.pass(&command, "$$"));
    let targets = [gate.unix(), Target::Tcp(held.addr())];
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let shops = [0, 1, 0, 1].map(|index: usize| {
            let (target, over, asked) = (&targets[index], &over, &asked);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let answer = target.post(PATH, "", b"{}");
                    assert_eq!(answer.status, 200, "{answer:?}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        for _ in 0..5 {
            // In the middle of it, however slow the machine is.
            let before = asked.load(Ordering::Relaxed);
            until("the shops are asking", || {
                asked.load(Ordering::Relaxed) > before + 20
                    || shops.iter().any(|shop| shop.is_finished())
            });
            gate = gate.restart_with(|command| held.pass(&command, "$$"));
        }
        over.store(true, Ordering::Relaxed);
        for shop in shops {
            shop.join().unwrap();
        }
    });
    assert_eq!(bank.requests().len(), asked.load(Ordering::Relaxed));
}

#[test]
fn what_was_passed_stays_with_the_manager_and_goes_to_no_child() {
    let world = World::new();
    let bank = world.good_bank();
    let (setup, held) = listening(&world, bank.port());
    let gate = setup.start_with(|command| held.pass(&command, "$$"));
    assert_eq!(gate.unix().post(PATH, "", b"{}").status, 200);
    let fds = format!("/proc/{}/fdinfo", gate.pid());
    for number in [3, 4] {
        let info = fs::read_to_string(format!("{fds}/{number}")).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        assert_ne!(flags & 0o2_000_000, 0, "closed in what it starts: {info}");
    }
    let mut gate = gate;
    gate.finish();
    assert!(gate.path().join("gate.sock").exists(), "not ours to remove");
}

fn run(command: &mut Command) -> Output {
    command.stderr(Stdio::piped()).output().unwrap()
}

fn gate_command(setup: &Setup) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_priorgate"));
    command.arg("run").arg("--config").arg(setup.config());
    command
}

#[test]
fn a_passed_socket_that_is_not_configured_is_an_error() {
    let world = World::new();
    let setup = world.setup(1);
    let held = Held::new(&setup);
    let setup = setup.listen(&[&format!("{{unix: gate.sock, callers: [{}]}}", me())]);
    setup.write();
    let output = run(&mut held.pass(&gate_command(&setup), "$$"));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let expected = format!("the service manager passes tcp {}", held.addr());
    assert!(told.contains(&expected), "{told}");
}

#[test]
fn sockets_for_another_process_are_none_of_its_business() {
    let world = World::new();
    let bank = world.good_bank();
    let setup = world.setup(bank.port());
    let elsewhere = world.setup(1);
    let held = Held::new(&elsewhere);
    // The same descriptors, for process 1: taken, they would be an error.
    let gate = setup.start_with(|command| held.pass(&command, "1"));
    assert_eq!(gate.tcp().post(PATH, "", b"{}").status, 200);
}

#[test]
fn the_watchdog_is_told_twice_in_each_of_its_spans() {
    let world = World::new();
    let bank = world.good_bank();
    let setup = world.setup(bank.port());
    let path = setup.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let gate = setup.start_with(|mut command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000");
        command
    });
    let mut beats = 0;
    let mut buffer = [0; 512];
    while beats < 5 {
        let size = manager.recv(&mut buffer).expect("another beat");
        beats += u32::from(&buffer[..size] == b"WATCHDOG=1");
    }
    // A gate that hangs says nothing.
    gate.signal(rustix::process::Signal::STOP);
    manager.set_nonblocking(true).unwrap();
    while manager.recv(&mut buffer).is_ok() {}
    manager.set_nonblocking(false).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_millis(600)))
        .unwrap();
    assert!(manager.recv(&mut buffer).is_err());
}
