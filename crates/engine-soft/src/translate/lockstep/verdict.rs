//! What a comparison comes to.

/// The outcome of a comparison.
pub(super) enum Verdict {
    Same,
    /// The recording does not go that far, or a device wrote to memory meanwhile.
    Unknown,
    Differs(Vec<Difference>),
}

/// One thing that differs.
pub(super) struct Difference {
    pub(super) what: String,
    pub(super) before: String,
    pub(super) reference: String,
    pub(super) translated: String,
}
