//! Messages that a client sends, checked and read in place.
