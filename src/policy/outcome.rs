//! What became of a request towards the bank.

/// The answer to the caller's only question after an error: did the request leave this machine?
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// The bank answered, and the answer was passed on.
    Answered,
    /// Provably, no byte of the request reached the bank.
    NotSent,
    /// The bank may have acted on it.
    Unknown,
}

impl Outcome {
    /// The value of `Priorgate-Outcome`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
        }
    }
}
