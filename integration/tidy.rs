//! Holds the layers, the pure set and the size limits of `src/`.
