//! x87 pointers.
