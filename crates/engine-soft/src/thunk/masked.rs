//! Masked moves and gathers.
