//! The client against sockets that are missing, mute, closed or wrong.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;

use super::*;

const SHORT: Duration = Duration::from_millis(50);

fn status() -> Value {
    serde_json::json!({"command": "status"})
}

/// A gate that answers each of its connections with the next of these, and tells what it was asked.
pub(in crate::cli) fn fake_gate(
    socket: &Path,
    answers: Vec<String>,
) -> thread::JoinHandle<Vec<Value>> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            asked.push(serde_json::from_str(&line).unwrap());
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
        asked
    })
}

fn answered(answer: &str) -> Result<Value, ClientError> {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let gate = fake_gate(&socket, vec![answer.to_owned()]);
    let result = ask(&socket, &status());
    assert_eq!(gate.join().unwrap(), [status()]);
    result
}

#[test]
fn a_result_is_given_and_a_refusal_keeps_its_code() {
    let result = answered("{\"ok\":true,\"result\":{\"phase\":\"ready\"}}\n").unwrap();
    assert_eq!(result["phase"], "ready");
    let refused = answered("{\"ok\":false,\"error\":{\"code\":\"c\",\"message\":\"why\"}}\n");
    let refused = refused.unwrap_err();
    assert_eq!((refused.code(), refused.to_string().as_str()), ("c", "why"));
}

#[test]
fn the_real_admin_socket_is_understood() {
    use std::sync::Arc;

    use tokio::sync::{mpsc, watch};

    use crate::admin::{Command, ReloadDone, Server, serve_unix, status::tests::sample};
    use crate::net::listen::Bound;

    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let bound = Bound::unix(&socket, 0o600, None).unwrap();
    let (commands, mut inbox) = mpsc::channel(1);
    let me = rustix::process::geteuid().as_raw();
    let (end, ended) = watch::channel(false);
    let gate = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let server = Server::new(vec![me], Arc::new(sample), commands, None, None);
            let served = tokio::spawn(serve_unix(bound.serve().unwrap(), server, ended));
            for result in [Ok(ReloadDone { generation: 2 }), Err("no".to_owned())] {
                let Some(Command::Reload { reply }) = inbox.recv().await else {
                    panic!("no command");
                };
                reply.send(result).unwrap();
            }
            served.await.unwrap();
        });
    });
    assert_eq!(
        ask(&socket, &status()).unwrap(),
        serde_json::to_value(sample()).unwrap()
    );
    let reload = serde_json::json!({"command": "reload"});
    assert_eq!(ask(&socket, &reload).unwrap()["generation"], 2);
    let refused = ask(&socket, &reload).unwrap_err();
    assert_eq!(
        (refused.code(), refused.to_string().as_str()),
        ("reload_failed", "no")
    );
    end.send_replace(true);
    gate.join().unwrap();
}

#[test]
fn what_is_no_answer_is_told_apart() {
    for answer in [
        "",
        "{\"ok\":true",
        "HTTP/1.1 400\r\n",
        "{\"ok\":true}\n",
        "{\"ok\":false}\n",
    ] {
        assert_eq!(
            answered(answer).unwrap_err().code(),
            "not_an_answer",
            "{answer}"
        );
    }
}

#[test]
fn an_answer_without_an_end_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let gate = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.write_all(&[b' '; 4096]).is_ok() {}
    });
    assert_eq!(ask(&socket, &status()).unwrap_err().code(), "not_an_answer");
    gate.join().unwrap();
}

#[test]
fn a_gate_that_does_not_run_is_told_with_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.sock");
    let dead = dir.path().join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    for socket in [missing, dead] {
        let error = ask(&socket, &status()).unwrap_err();
        assert_eq!(error.code(), "not_running");
        assert!(error.to_string().contains("priorgate run"), "{error}");
        assert!(
            error.to_string().contains(socket.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn a_mute_gate_is_given_up_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let start = Instant::now();
    let error = ask_within(&socket, &status(), SHORT).unwrap_err();
    assert_eq!(error.code(), "timeout");
    assert!(start.elapsed() < DEADLINE);
    drop(listener);
}

#[test]
fn a_full_queue_is_given_up_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let address = SocketAddrUnix::new(&socket).unwrap();
    let listener = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _first = UnixStream::connect(&socket).unwrap();
    let start = Instant::now();
    let error = ask_within(&socket, &status(), SHORT).unwrap_err();
    assert_eq!(error.code(), "timeout");
    assert!(start.elapsed() < DEADLINE);
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_an_error() {
    let socket = PathBuf::from(format!("/{}", "x".repeat(200)));
    assert_eq!(ask(&socket, &status()).unwrap_err().code(), "system");
}

#[test]
fn the_socket_is_found_in_a_file_with_a_mistake_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    let found = |text: &str| {
        fs::write(&config, text).unwrap();
        socket_of(&config)
    };
    let text = "banks: [{nmae: typo}]\nadmin: {unix: admin.sock, mode: \"0600\"}\n";
    assert_eq!(found(text).unwrap(), dir.path().join("admin.sock"));
    let text = "admin:\n  unix: /run/priorgate/admin.sock\n  operators: [root]\n";
    assert_eq!(found(text).unwrap(), Path::new("/run/priorgate/admin.sock"));
    assert!(matches!(
        found("banks: []\n"),
        Err(SocketError::None { .. })
    ));
    assert!(matches!(
        found("admin: {tcp: x}\n"),
        Err(SocketError::None { .. })
    ));
    assert!(matches!(
        found("admin: [\n"),
        Err(SocketError::Malformed { .. })
    ));
    fs::remove_file(&config).unwrap();
    assert!(matches!(
        socket_of(&config),
        Err(SocketError::Unreadable { .. })
    ));
}
