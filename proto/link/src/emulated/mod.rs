//! A port that behaves like the real one.
