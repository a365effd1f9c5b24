//! stub
use super::{Config, ConfigError};
/// stub
pub fn load(_path: &std::path::Path) -> Result<Config, ConfigError> {
    Err(ConfigError)
}
