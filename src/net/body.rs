//! A caller's body, read whole: bounded in bytes and time.

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

/// Why a caller's body is not there.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The caller left, or broke its framing.
    #[error("the caller's body ended before it was complete")]
    Gone(#[source] hyper::Error),
    /// The deadline passed.
    #[error("the caller's body did not arrive in time")]
    TimedOut,
    /// It is, or announces to be, above the limit.
    #[error("the caller's body is above the limit")]
    TooLarge,
}

/// Reads a body of at most `limit` bytes until `deadline`.
///
/// What announces too much is refused before a byte is read: a caller that waits for `100 Continue` is told at once,
/// since hyper sends the `100` only when the body is asked for.
///
/// # Errors
/// See [`BodyError`].
pub async fn read(mut body: Incoming, limit: usize, deadline: Instant) -> Result<Bytes, BodyError> {
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(BodyError::TimedOut),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(BodyError::Gone(error)),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let so_far = rest.as_ref().map_or(first.len(), BytesMut::len);
        if so_far.saturating_add(data.len()) > limit {
            return Err(BodyError::TooLarge);
        }
        match &mut rest {
            Some(rest) => rest.extend_from_slice(&data),
            // The usual body comes in one piece and is passed on as it lies in hyper's buffer.
            None if first.is_empty() => first = data,
            None => {
                let size = usize::try_from(announced).unwrap_or(limit).min(limit);
                let mut buffer = BytesMut::with_capacity(size);
                buffer.extend_from_slice(&first);
                buffer.extend_from_slice(&data);
                rest = Some(buffer);
            }
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}
