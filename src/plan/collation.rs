//! The collations of columns whose rows pass through the proxy: how they are asked for, and written again.

/// Asks for the collation of an expression, as SQL; NULL if its values have none.
pub fn of(expression: &str) -> String {
    format!(
        "CASE WHEN (SELECT t.typcollation FROM pg_catalog.pg_type t \
         WHERE t.oid = pg_catalog.pg_typeof({expression})) <> 0 \
         THEN pg_catalog.pg_collation_for({expression}) END"
    )
}

/// What gives an expression this collation.
pub fn clause(collation: Option<&str>) -> String {
    match collation {
        // It has that of itself.
        None | Some("\"default\"") => String::new(),
        Some(collation) => format!(" COLLATE {collation}"),
    }
}
