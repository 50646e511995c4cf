//! Statement + catalog + arguments to plan; pure.
