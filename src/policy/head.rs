//! stub
#![allow(missing_docs)]
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub max_bytes: usize,
    pub max_headers: usize,
}
#[derive(Clone, Copy, Debug)]
pub enum Reason {
    X,
}
impl Reason {
    pub fn as_str(self) -> &'static str {
        "x"
    }
}
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    Malformed(Reason),
    LengthRequired,
    TooLarge,
}
