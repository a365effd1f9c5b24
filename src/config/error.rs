//! stub
/// stub
#[derive(Debug)]
pub struct ConfigError;
