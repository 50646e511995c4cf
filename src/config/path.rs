//! YAML paths as problems print them: `databases.shop.shards[1].primary`.

/// The path of a value under a key. Keys that would read wrongly are quoted.
pub(super) fn key(parent: &str, key: &str) -> String {
    let plain = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    let key = if plain {
        key.to_owned()
    } else {
        format!("{key:?}")
    };
    if parent.is_empty() {
        key
    } else {
        format!("{parent}.{key}")
    }
}

/// The path of an element of a list.
pub(super) fn index(parent: &str, index: usize) -> String {
    format!("{parent}[{index}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_written() {
        let shard = index(&key(&key(&key("", "databases"), "shop"), "shards"), 1);
        assert_eq!(key(&shard, "primary"), "databases.shop.shards[1].primary");
        assert_eq!(key("tables", "*"), "tables.\"*\"");
        assert_eq!(key("tables", "app.users"), "tables.\"app.users\"");
        assert_eq!(key("", ""), "\"\"");
    }
}
