//! Trees on disk that came out of an image: whatever is in them, no path of theirs leads out of them.

pub mod remove;
