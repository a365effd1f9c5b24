//! Secrets that are one line in a file: callers' tokens, and values of headers that the bank wants.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroize;

use crate::policy::secret::Secret;

/// Longer than any token or API key.
const MAX: usize = 4 << 10;
/// 128 bits in hex are 32; half of that can still not be guessed over loopback.
const TOKEN_MIN: usize = 16;

/// What is wrong with a secret's file. Never a byte of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// Not one line of visible ASCII.
    #[error("{}: expected one line of visible ASCII without spaces", path.display())]
    Characters {
        /// The file.
        path: PathBuf,
    },
    /// Nothing in it.
    #[error("{}: is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Above the bound.
    #[error("{}: is longer than {MAX} bytes; is this the right file?", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A token that could be guessed.
    #[error("{}: a token has at least {TOKEN_MIN} characters; make one: openssl rand -hex 24", path.display())]
    TooShort {
        /// The file.
        path: PathBuf,
    },
    /// The file.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl SecretFileError {
    /// Whether it is only that this user may not read the file.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Reads a caller's token.
///
/// # Errors
/// [`SecretFileError`].
pub fn token(path: &Path) -> Result<Secret, SecretFileError> {
    let secret = line(path)?;
    let bytes = secret.expose();
    if !bytes.iter().all(u8::is_ascii_graphic) {
        return Err(SecretFileError::Characters {
            path: path.to_owned(),
        });
    }
    if bytes.len() < TOKEN_MIN {
        return Err(SecretFileError::TooShort {
            path: path.to_owned(),
        });
    }
    Ok(secret)
}

/// Reads a header's value: visible ASCII, spaces inside allowed.
///
/// # Errors
/// [`SecretFileError`].
pub fn header_value(path: &Path) -> Result<Secret, SecretFileError> {
    let secret = line(path)?;
    if secret
        .expose()
        .iter()
        .all(|byte| byte.is_ascii_graphic() || *byte == b' ')
    {
        Ok(secret)
    } else {
        Err(SecretFileError::Characters {
            path: path.to_owned(),
        })
    }
}

/// One line, without its line break.
fn line(path: &Path) -> Result<Secret, SecretFileError> {
    let unreadable = |source| SecretFileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    // Sized before the first byte, so that no copy is left behind by growing.
    let mut bytes = Vec::with_capacity(MAX + 2);
    let read = file.take(MAX as u64 + 1).read_to_end(&mut bytes);
    if let Err(source) = read {
        bytes.zeroize();
        return Err(unreadable(source));
    }
    if bytes.len() > MAX {
        bytes.zeroize();
        return Err(SecretFileError::TooLong {
            path: path.to_owned(),
        });
    }
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(SecretFileError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_token_is_one_line_that_cannot_be_guessed() {
        let good = file("0123456789abcdef\r\n");
        assert_eq!(token(good.path()).unwrap().expose(), b"0123456789abcdef");
        let error = |text: &str| token(file(text).path()).unwrap_err();
        assert!(matches!(error("short"), SecretFileError::TooShort { .. }));
        assert!(matches!(error("\n"), SecretFileError::Empty { .. }));
        assert!(matches!(
            error("two words of a token"),
            SecretFileError::Characters { .. }
        ));
        assert!(matches!(
            error("0123456789abcdef\n0123456789abcdef"),
            SecretFileError::Characters { .. }
        ));
        assert!(matches!(
            error(&"a".repeat(MAX + 1)),
            SecretFileError::TooLong { .. }
        ));
        assert_eq!(
            header_value(file("Basic eDp5\n").path()).unwrap().expose(),
            b"Basic eDp5"
        );
    }
}
