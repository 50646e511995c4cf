//! `DateStyle`, the one setting whose SET may name a part of its value and leave the rest; pure.

/// What is known of a session's DateStyle: its two halves, as far as the session has named them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DateStyle {
    style: Option<&'static str>,
    order: Option<&'static str>,
}

impl DateStyle {
    /// Takes a value that was set; returns whether all its words are understood.
    pub fn set(&mut self, values: &[String]) -> bool {
        let mut new = DateStyle::default();
        for word in values.iter().flat_map(|value| value.split(',')) {
            match word.trim().to_ascii_lowercase().as_str() {
                "iso" => new.style = Some("ISO"),
                "sql" => new.style = Some("SQL"),
                "german" => {
                    new.style = Some("German");
                    new.order = new.order.or(Some("DMY"));
                }
                word if word.starts_with("postgres") => new.style = Some("Postgres"),
                "ymd" => new.order = Some("YMD"),
                "mdy" | "us" => new.order = Some("MDY"),
                word if word.starts_with("noneuro") => new.order = Some("MDY"),
                "dmy" => new.order = Some("DMY"),
                word if word.starts_with("euro") => new.order = Some("DMY"),
                _ => {
                    *self = DateStyle::default();
                    return false;
                }
            }
        }
        self.style = new.style.or(self.style);
        self.order = new.order.or(self.order);
        true
    }

    /// The statements that give another connection this DateStyle.
    pub fn statement(self) -> String {
        match (self.style, self.order) {
            (Some(style), Some(order)) => format!("SET datestyle TO {style}, {order}"),
            // The rest is the default's, whatever the connection has now.
            (style, order) => format!(
                "RESET datestyle;\nSET datestyle TO {}",
                style.or(order).unwrap_or("DEFAULT")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(values: &[&str]) -> DateStyle {
        let mut style = DateStyle::default();
        for value in values {
            assert!(style.set(&[(*value).to_owned()]), "{value}");
        }
        style
    }

    #[test]
    fn halves_add_up() {
        let iso_ymd = "SET datestyle TO ISO, YMD";
        assert_eq!(after(&["iso", "ymd"]).statement(), iso_ymd);
        assert_eq!(after(&["Postgres, MDY", "iso", "YMD"]).statement(), iso_ymd);
        assert_eq!(
            after(&["German"]).statement(),
            "SET datestyle TO German, DMY"
        );
        assert_eq!(
            after(&["european", "german", "US"]).statement(),
            "SET datestyle TO German, MDY"
        );
    }

    #[test]
    fn a_half_alone_starts_from_the_default() {
        let statement = "RESET datestyle;\nSET datestyle TO YMD";
        assert_eq!(after(&["ymd"]).statement(), statement);
    }

    #[test]
    fn an_unknown_word_is_not_understood() {
        assert!(!DateStyle::default().set(&["default".to_owned()]));
    }
}
