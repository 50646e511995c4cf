//! What was asked: tokens, shapes, classification, syntax trees; pure.
