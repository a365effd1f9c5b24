//! The gate's end against a keyholder that answers late, out of turn, twice, or not at all.

use std::sync::Arc;
use std::thread::{JoinHandle, spawn};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, listen,
    recv, send, socket_with, socketpair,
};

use super::*;

const KEY: KeyId = KeyId([7; 32]);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn pair() -> (Arc<Keyholder>, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    (Arc::new(Keyholder::inherited(ours).unwrap()), theirs)
}

/// The next question: its id, and the message if it is one to sign.
fn question(socket: &OwnedFd) -> Option<(u64, Vec<u8>)> {
    let mut buffer = vec![0; 70_000];
    let (size, _) = recv(socket, &mut buffer[..], RecvFlags::empty()).unwrap();
    if size == 0 {
        return None;
    }
    let (id, request) = Request::decode(&buffer[..size]).unwrap();
    let message = match request {
        Request::Sign { message, .. } => message.to_vec(),
        _ => Vec::new(),
    };
    Some((id, message))
}

fn say(socket: &OwnedFd, answer: &Answer, id: u64) {
    send(socket, &answer.encode(id), SendFlags::NOSIGNAL).unwrap();
}

fn sign(
    keyholder: &Arc<Keyholder>,
    message: &str,
    until: Instant,
) -> JoinHandle<Result<Vec<u8>, AskError>> {
    let (keyholder, message) = (Arc::clone(keyholder), message.to_owned());
    spawn(move || keyholder.sign(KEY, 0x0807, message.as_bytes(), until))
}

#[test]
fn an_answer_that_comes_late_is_never_another_askers() {
    let (keyholder, signer) = pair();
    let first = sign(
        &keyholder,
        "first",
        Instant::now() + Duration::from_millis(50),
    );
    let (late, _) = question(&signer).unwrap();
    assert!(matches!(first.join().unwrap(), Err(AskError::TimedOut(_))));
    assert!(!keyholder.facts().up);
    let second = sign(&keyholder, "second", soon());
    let (id, message) = question(&signer).unwrap();
    assert_eq!(message, b"second");
    say(&signer, &Answer::Signed(b"for the first".to_vec()), late);
    say(&signer, &Answer::Signed(b"for the second".to_vec()), id);
    assert_eq!(second.join().unwrap().unwrap(), b"for the second");
    assert!(keyholder.facts().up);
}

#[test]
fn forty_askers_at_once_each_get_their_own() {
    let (keyholder, signer) = pair();
    let signer = spawn(move || {
        while let Some((id, message)) = question(&signer) {
            // An answer to nothing beside each, as a late one would be.
            say(
                &signer,
                &Answer::Signed(b"nobody's".to_vec()),
                id + 1_000_000,
            );
            say(&signer, &Answer::Signed(message), id);
        }
    });
    let askers: Vec<_> = (0..40)
        .map(|asker| {
            let keyholder = Arc::clone(&keyholder);
            spawn(move || {
                for round in 0..25 {
                    let message = format!("{asker}/{round}");
                    let signed = keyholder.sign(KEY, 0x0807, message.as_bytes(), soon());
                    assert_eq!(signed.unwrap(), message.as_bytes());
                }
            })
        })
        .collect();
    for asker in askers {
        asker.join().unwrap();
    }
    assert_eq!(keyholder.facts().signatures, 1000);
    drop(keyholder);
    signer.join().unwrap();
}

#[test]
fn what_a_dead_signer_had_read_is_asked_again_under_another_id() {
    let (keyholder, signer) = pair();
    let asked = sign(&keyholder, "once", soon());
    let (lost, _) = question(&signer).unwrap();
    say(&signer, &Answer::Restarted { pid: 42 }, 0);
    let (id, message) = question(&signer).unwrap();
    assert_eq!(message, b"once");
    assert_ne!(id, lost);
    say(&signer, &Answer::Signed(b"signed".to_vec()), id);
    assert_eq!(asked.join().unwrap().unwrap(), b"signed");
    let facts = keyholder.facts();
    assert_eq!((facts.restarts, facts.pid), (1, Some(42)));
}

#[test]
fn it_waits_as_long_as_it_is_told_to_but_not_beyond_the_deadline() {
    let (keyholder, signer) = pair();
    let started = Instant::now();
    let asked = sign(&keyholder, "m", soon());
    let (id, _) = question(&signer).unwrap();
    say(&signer, &Answer::Wait(80), id);
    let (id, _) = question(&signer).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(80));
    // Another may ask meanwhile: whoever waits does not hold the connection.
    say(&signer, &Answer::Wait(600_000), id);
    assert!(matches!(asked.join().unwrap(), Err(AskError::Pace)));
}

#[test]
fn a_refusal_a_changed_key_and_last_words_are_told_apart() {
    let (keyholder, signer) = pair();
    let ask = |answer: &Answer, own: bool| {
        let asked = sign(&keyholder, "m", soon());
        let (id, _) = question(&signer).unwrap();
        say(&signer, answer, if own { id } else { 0 });
        asked.join().unwrap().unwrap_err()
    };
    let refused = ask(&Answer::Refused(Refused::Log), true);
    assert!(matches!(refused, AskError::Refused(Refused::Log)));
    assert!(matches!(
        ask(&Answer::KeyChanged, true),
        AskError::KeyChanged
    ));
    assert!(matches!(
        ask(&Answer::Reloaded(Ok(())), true),
        AskError::Unexpected
    ));
    let gone = ask(&Answer::Reloaded(Err("no such key".to_owned())), false);
    assert!(matches!(gone, AskError::Gone(why) if why == "no such key"));
    let after = keyholder.sign(KEY, 0x0807, b"m", soon());
    assert!(matches!(after, Err(AskError::Gone(_))));
}

/// A path at which somebody listens, as the service manager does.
fn listener(path: &Path) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
    listen(&listener, 8).unwrap();
    listener
}

#[test]
fn a_keyholder_of_the_service_manager_is_reached_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sign.sock");
    let keyholder = Arc::new(Keyholder::at(&path));
    let late = keyholder.sign(
        KEY,
        0x0807,
        b"m",
        Instant::now() + Duration::from_millis(60),
    );
    assert!(matches!(late, Err(AskError::TimedOut(why)) if why.contains("No such file")));
    // Asked before there is a socket, and answered by the second connection only.
    let asked = sign(&keyholder, "m", soon());
    let listener = listener(&path);
    drop(rustix::net::accept(&listener).unwrap());
    let signer = rustix::net::accept(&listener).unwrap();
    let (id, _) = question(&signer).unwrap();
    say(&signer, &Answer::Signed(b"s".to_vec()), id);
    assert_eq!(asked.join().unwrap().unwrap(), b"s");
    // One that has grown old may end beside that: a signer was replaced, and the next one died.
    let asked = sign(&keyholder, "n", soon());
    question(&signer).unwrap();
    drop(signer);
    drop(rustix::net::accept(&listener).unwrap());
    let signer = rustix::net::accept(&listener).unwrap();
    let (id, message) = question(&signer).unwrap();
    assert_eq!(message, b"n");
    say(&signer, &Answer::Signed(b"t".to_vec()), id);
    assert_eq!(asked.join().unwrap().unwrap(), b"t");
}

#[test]
fn a_keyholder_that_ends_every_connection_is_asked_twice_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sign.sock");
    let listener = listener(&path);
    let keyholder = Arc::new(Keyholder::at(&path));
    let started = Instant::now();
    let asked = sign(&keyholder, "m", soon());
    for _ in 0..2 {
        let signer = rustix::net::accept(&listener).unwrap();
        question(&signer).unwrap();
    }
    let failed = asked.join().unwrap();
    assert!(matches!(failed, Err(AskError::Closed(_))), "{failed:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_message_that_no_packet_holds_is_refused_here_and_costs_no_connection() {
    let (keyholder, signer) = pair();
    let message = vec![0; MESSAGE_MAX + 1];
    let refused = keyholder.sign(KEY, 0x0303, &message, soon());
    let expected = Refused::Judged(Refusal::Message);
    assert!(matches!(refused, Err(AskError::Refused(why)) if why == expected));
    let asked = sign(&keyholder, "m", soon());
    let (id, asks) = question(&signer).unwrap();
    assert_eq!(asks, b"m");
    say(&signer, &Answer::Signed(b"s".to_vec()), id);
    assert_eq!(asked.join().unwrap().unwrap(), b"s");
}

#[test]
fn handshakes_are_signed_while_a_reload_is_under_way() {
    let (keyholder, signer) = pair();
    let reload = {
        let keyholder = Arc::clone(&keyholder);
        spawn(move || keyholder.reload(soon()))
    };
    let (reloads, _) = question(&signer).unwrap();
    for round in 0..20_u8 {
        let asked = sign(&keyholder, "m", soon());
        let (id, message) = question(&signer).unwrap();
        assert_eq!(message, b"m");
        // In the middle of another's question: whoever reads it hands it on.
        if round == 19 {
            say(&signer, &Answer::Reloaded(Ok(())), reloads);
        }
        say(&signer, &Answer::Signed(vec![round]), id);
        assert_eq!(asked.join().unwrap().unwrap(), [round]);
        assert!(round == 19 || !reload.is_finished());
    }
    reload.join().unwrap().unwrap();
}

#[test]
fn a_reload_that_died_with_its_signer_is_asked_again() {
    let (keyholder, signer) = pair();
    let reload = {
        let keyholder = Arc::clone(&keyholder);
        spawn(move || keyholder.reload(soon()))
    };
    let (lost, _) = question(&signer).unwrap();
    say(&signer, &Answer::Restarted { pid: 42 }, 0);
    let (id, _) = question(&signer).unwrap();
    assert_ne!(id, lost);
    say(
        &signer,
        &Answer::Reloaded(Err("no such key".to_owned())),
        id,
    );
    let kept = reload.join().unwrap();
    assert!(matches!(kept, Err(AskError::Kept(why)) if why == "no such key"));
}

#[tokio::test]
async fn the_end_of_an_inherited_keyholder_is_noticed_while_nobody_asks_and_its_last_words_are_told()
 {
    for words in [Some("no key loads"), None] {
        let (keyholder, signer) = pair();
        let waits = {
            let keyholder = Arc::clone(&keyholder);
            tokio::spawn(async move { keyholder.gone().await })
        };
        // An answer to somebody who no longer waits is no end.
        say(&signer, &Answer::KeyChanged, 77);
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        if let Some(words) = words {
            say(&signer, &Answer::Reloaded(Err(words.to_owned())), 0);
        }
        drop(signer);
        let told = tokio::time::timeout(Duration::from_secs(20), waits).await;
        let expected = words.unwrap_or("it was killed, or died without a word");
        assert_eq!(told.unwrap().unwrap(), expected);
    }
}
