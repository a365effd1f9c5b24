//! Sends callbacks: one task that watches the queue, one task per attempt.
//!
//! Owns the request on the wire, the reading of its answer and every wait. By hand, because faults
//! need every byte under control. What is sent, and when, the queue says.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::letter::Letter;
use super::queue::Parcel;
use super::url::{CallbackUrl, Target};
use crate::sandbox::bank::{Bank, LogEvent};

/// How many attempts may be under way at once.
const MAX_FLYING: usize = 64;
/// In how many pieces a slow body comes.
const PIECES: usize = 8;
const MAX_ANSWER_HEAD: usize = 16 << 10;
const MAX_ANSWER_BODY: usize = 64 << 10;
/// How long to wait for the rest of an answer whose status is known.
const LINGER: Duration = Duration::from_secs(1);

/// Sends what the queue has, for ever. Dropping the future ends every attempt.
pub(in crate::sandbox) async fn run(bank: Arc<Bank>, wake: Arc<Notify>) {
    let mut flying = JoinSet::new();
    loop {
        let next = start(&bank, &mut flying);
        let alarm = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wake.notified() => {}
            () = alarm => {}
            Some(_) = flying.join_next() => {}
        }
        while flying.try_join_next().is_some() {}
    }
}

/// Starts what is due, and says when the next one is.
fn start(bank: &Arc<Bank>, flying: &mut JoinSet<()>) -> Option<Instant> {
    let mut state = bank.lock();
    let callbacks = state.callbacks.as_mut()?;
    while flying.len() < MAX_FLYING {
        let Some(parcel) = callbacks.queue.take(Instant::now()) else {
            return callbacks.queue.next();
        };
        let (to, patience) = (callbacks.url.clone(), callbacks.patience);
        flying.spawn(deliver(Arc::clone(bank), to, parcel, patience));
    }
    // One of those under way has to end first, and wakes us.
    None
}

/// One attempt, or two at once. It is counted and logged when this returns.
async fn deliver(bank: Arc<Bank>, to: CallbackUrl, parcel: Parcel, patience: Duration) {
    let head = head(&to, &parcel.letter);
    let attempt = || request(&to, &head, &parcel.letter.body, parcel.slow, patience);
    let outcomes = if parcel.copies == 2 {
        let (one, two) = tokio::join!(attempt(), attempt());
        vec![one, two]
    } else {
        vec![attempt().await]
    };
    let answers: Vec<Option<u16>> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().ok().copied())
        .collect();
    let mut state = bank.lock();
    let Some(callbacks) = state.callbacks.as_mut() else {
        return;
    };
    let settled = callbacks
        .queue
        .settle(parcel.number, &answers, Instant::now());
    let Some(event) = settled else { return };
    let before = event.attempts.saturating_sub(parcel.copies);
    for (attempt, outcome) in (before.saturating_add(1)..).zip(outcomes) {
        let mut line = format!(
            "{} of {} to {to}, attempt {attempt}",
            event.status, event.session_id
        );
        if let Err(reason) = &outcome {
            // Writing to a String cannot fail.
            let _ = write!(line, ": {reason}");
        }
        let played = (outcome.ok(), event.fault.clone());
        bank.record(&mut state, LogEvent::Callback, line, None, played);
    }
}

/// The request's head, complete.
fn head(to: &CallbackUrl, letter: &Letter) -> Vec<u8> {
    let mut head = format!("POST {} HTTP/1.1\r\nHost: {}\r\n", to.path, to.host());
    head.push_str("User-Agent: priorgate-sandbox (not a bank)\r\n");
    for (name, value) in &letter.headers {
        // Writing to a String cannot fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let length = letter.body.len();
    let _ = write!(
        head,
        "Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    head.into_bytes()
}

/// The status of the answer, or why there was none.
async fn request(
    to: &CallbackUrl,
    head: &[u8],
    body: &[u8],
    slow: Option<Duration>,
    patience: Duration,
) -> Result<u16, String> {
    let limit = patience.saturating_add(slow.unwrap_or_default());
    let talk = async {
        match &to.target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // Head and body go out in one write, or slowly on purpose.
                stream.set_nodelay(true)?;
                exchange(stream, head, body, slow).await
            }
            Target::Unix(socket) => {
                exchange(UnixStream::connect(socket).await?, head, body, slow).await
            }
        }
    };
    match timeout(limit, talk).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Sends a request and reads the answer, which may come before the request is sent whole.
async fn exchange<S: AsyncRead + AsyncWrite>(
    stream: S,
    head: &[u8],
    body: &[u8],
    slow: Option<Duration>,
) -> io::Result<u16> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        let Some(time) = slow else {
            let whole = [head, body].concat();
            writer.write_all(&whole).await?;
            return writer.flush().await;
        };
        writer.write_all(head).await?;
        let pause = time / u32::try_from(PIECES).unwrap_or(1);
        for piece in body.chunks(body.len().div_ceil(PIECES).max(1)) {
            sleep(pause).await;
            writer.write_all(piece).await?;
            writer.flush().await?;
        }
        Ok(())
    };
    let mut answer = std::pin::pin!(answer(&mut reader));
    tokio::select! {
        status = &mut answer => status,
        written = write => match (answer.await, written) {
            (Ok(status), _) => Ok(status),
            // What stopped the writing says more than the silence after it.
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        }
    }
}

/// Reads an answer: its status, after any 1xx, and as much of the rest as comes without trouble.
async fn answer(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<u16> {
    let mut buffer = Vec::new();
    loop {
        let found = buffer.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = found.map(|at| at + 4) else {
            if buffer.len() > MAX_ANSWER_HEAD {
                return Err(no_http());
            }
            if reader.read_buf(&mut buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            continue;
        };
        let head: Vec<u8> = buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let status = status(&head).ok_or_else(no_http)?;
        if status < 200 {
            continue;
        }
        // Closing with unread bytes would reset the connection under whoever wrote them.
        let length = length(&head).min(MAX_ANSWER_BODY);
        let rest = async {
            while buffer.len() < length && reader.read_buf(&mut buffer).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = timeout(LINGER, rest).await;
        return Ok(status);
    }
}

/// `HTTP/1.1 200 …`, in lower case.
fn status(head: &str) -> Option<u16> {
    let mut words = head.lines().next()?.split(' ');
    let version = words.next()?;
    let digits = words.next().filter(|digits| digits.len() == 3)?;
    let status = digits.parse().ok()?;
    (version.starts_with("http/1.") && (100..600).contains(&status)).then_some(status)
}

/// What the head, in lower case, says about the body; without a length it lasts to the end.
fn length(head: &str) -> usize {
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length:"));
    length.map_or(usize::MAX, |digits| digits.trim().parse().unwrap_or(0))
}

fn no_http() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<u16, io::ErrorKind> {
        let mut bytes = bytes;
        answer(&mut bytes).await.map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn the_final_status_of_an_answer_is_read() {
        for (bytes, status) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", 204),
            ("HTTP/1.0 503\r\nContent-Length: 2\r\n\r\nno", 503),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nyes",
                200,
            ),
        ] {
            assert_eq!(read(bytes.as_bytes()).await, Ok(status), "{bytes}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_an_error() {
        for (bytes, kind) in [
            ("", io::ErrorKind::UnexpectedEof),
            ("HTTP/1.1 200 OK\r\n", io::ErrorKind::UnexpectedEof),
            (
                "HTTP/1.1 100 Continue\r\n\r\n",
                io::ErrorKind::UnexpectedEof,
            ),
            ("hello\r\n\r\n", io::ErrorKind::InvalidData),
            ("HTTP/2 200\r\n\r\n", io::ErrorKind::InvalidData),
            ("HTTP/1.1 20 OK\r\n\r\n", io::ErrorKind::InvalidData),
        ] {
            assert_eq!(read(bytes.as_bytes()).await, Err(kind), "{bytes}");
        }
        let endless = vec![b'a'; MAX_ANSWER_HEAD + 1];
        assert_eq!(read(&endless).await, Err(io::ErrorKind::InvalidData));
    }
}
