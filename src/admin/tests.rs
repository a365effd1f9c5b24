//! The admin socket over a real one: who may what, and what a bad peer can do.

use std::path::PathBuf;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::admin::status::tests::sample;
use crate::net::listen::Bound;

const PATIENCE: Duration = Duration::from_secs(10);

struct Admin {
    path: PathBuf,
    inbox: mpsc::Receiver<Command>,
    end: watch::Sender<bool>,
    served: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn admin(operators: Vec<u32>) -> Admin {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let listener = Bound::unix(&path, 0o600, None).unwrap().serve().unwrap();
    let (commands, inbox) = mpsc::channel(16);
    let server = Server::new(operators, Arc::new(sample), commands, None, None);
    let (end, ended) = watch::channel(false);
    let served = tokio::spawn(serve_unix(listener, server, ended));
    Admin {
        path,
        inbox,
        end,
        served,
        _dir: dir,
    }
}

fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

async fn connect(admin: &Admin) -> BufReader<UnixStream> {
    BufReader::new(UnixStream::connect(&admin.path).await.unwrap())
}

async fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    timeout(PATIENCE, stream.read_line(&mut line))
        .await
        .expect("no answer")
        .unwrap();
    line
}

async fn ask(stream: &mut BufReader<UnixStream>, command: &[u8]) -> Value {
    stream.write_all(command).await.unwrap();
    serde_json::from_str(&line(stream).await).unwrap()
}

#[tokio::test]
async fn one_connection_asks_more_than_once() {
    let admin = admin(vec![]);
    let mut stream = connect(&admin).await;
    for _ in 0..3 {
        let answer = ask(&mut stream, b"{\"command\":\"status\"}\n").await;
        assert_eq!(answer["ok"], true);
        assert_eq!(answer["result"]["phase"], "ready");
    }
    let answer = ask(&mut stream, b"nonsense\n").await;
    assert_eq!(answer["error"]["code"], "bad_request");
    assert_eq!(
        ask(&mut stream, b"{\"command\":\"status\"}\n").await["ok"],
        true
    );
}

#[tokio::test]
async fn the_kernel_says_who_reloads() {
    let mut stranger = admin(vec![me().wrapping_add(1)]);
    let mut stream = connect(&stranger).await;
    let answer = ask(&mut stream, b"{\"command\":\"reload\"}\n").await;
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["error"]["code"], "operator_required");
    assert!(stranger.inbox.try_recv().is_err());

    let mut operator = admin(vec![me()]);
    let mut stream = connect(&operator).await;
    stream
        .write_all(b"{\"command\":\"reload\"}\n")
        .await
        .unwrap();
    let command = timeout(PATIENCE, operator.inbox.recv()).await.unwrap();
    let Some(Command::Reload { reply }) = command else {
        panic!("no command");
    };
    reply.send(Ok(ReloadDone { generation: 7 })).unwrap();
    let answer: Value = serde_json::from_str(&line(&mut stream).await).unwrap();
    assert_eq!(
        answer,
        serde_json::json!({"ok": true, "result": {"generation": 7}})
    );
}

#[tokio::test]
async fn a_line_without_an_end_is_refused_and_closed() {
    let admin = admin(vec![]);
    let mut stream = connect(&admin).await;
    let answer = ask(&mut stream, &[b' '; MAX_LINE as usize]).await;
    assert_eq!(answer["error"]["code"], "bad_request");
    assert_eq!(line(&mut stream).await, "");
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (commands, _inbox) = mpsc::channel(1);
    let server = Server::new(vec![], Arc::new(sample), commands, None, None);
    let mut ours = BufReader::new(ours);
    // Half a line is silence, too.
    ours.write_all(b"{\"command\":").await.unwrap();
    let short = Duration::from_millis(20);
    let ended = timeout(PATIENCE, connection(theirs, &server, short)).await;
    ended.expect("it waits for ever").unwrap();
    assert_eq!(line(&mut ours).await, "");
}

#[tokio::test]
async fn a_peer_that_never_reads_is_given_up() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (commands, _inbox) = mpsc::channel(1);
    let server = Server::new(vec![], Arc::new(sample), commands, None, None);
    let served = connection(theirs, &server, Duration::from_millis(50));
    let flood = async {
        let mut ours = ours;
        while ours.write_all(b"{\"command\":\"status\"}\n").await.is_ok() {}
    };
    let (ended, ()) = timeout(PATIENCE, async { tokio::join!(served, flood) })
        .await
        .unwrap();
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn more_connections_than_places_wait_and_are_served_later() {
    let admin = admin(vec![]);
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = connect(&admin).await;
        assert_eq!(
            ask(&mut stream, b"{\"command\":\"status\"}\n").await["ok"],
            true
        );
        held.push(stream);
    }
    let mut next = connect(&admin).await;
    next.write_all(b"{\"command\":\"status\"}\n").await.unwrap();
    let mut early = String::new();
    let waited = timeout(Duration::from_millis(100), next.read_line(&mut early)).await;
    assert!(waited.is_err(), "served beyond the bound: {early}");
    held.pop();
    assert!(line(&mut next).await.contains("\"ok\":true"));
}

#[tokio::test]
async fn the_end_closes_the_listener_and_its_connections() {
    let admin = admin(vec![]);
    let mut stream = connect(&admin).await;
    assert_eq!(
        ask(&mut stream, b"{\"command\":\"status\"}\n").await["ok"],
        true
    );
    admin.end.send_replace(true);
    assert_eq!(line(&mut stream).await, "");
    timeout(PATIENCE, admin.served)
        .await
        .expect("it serves on")
        .unwrap();
    assert!(!admin.path.exists(), "the socket file is left behind");
}
