//! Task switch.
