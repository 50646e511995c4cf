//! Golden plans, the parser held against PostgreSQL's own, and mutated statements.

mod fixture;
mod golden;
