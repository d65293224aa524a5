//! engine-soft
