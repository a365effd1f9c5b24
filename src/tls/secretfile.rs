//! stub
#![allow(missing_docs)]
use crate::policy::secret::Secret;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct SecretFileError;
pub fn token(_p: &std::path::Path) -> Result<Secret, SecretFileError> {
    Err(SecretFileError)
}
pub fn header_value(_p: &std::path::Path) -> Result<Secret, SecretFileError> {
    Err(SecretFileError)
}
