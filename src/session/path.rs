//! The search path as planning needs it: with the schema that `"$user"` stands for; pure.

use std::borrow::Cow;
use std::sync::Arc;

/// The schema that is called as the current user is.
const USER: &str = "$user";

/// Who a session is on the servers, as far as its search path depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// The role that its server connections log in as; empty if it is not known.
    login: Arc<str>,
    /// The search path of that role, where it is not the one that the catalogue was read with.
    path: Option<Arc<[String]>>,
    /// SET SESSION AUTHORIZATION.
    authorization: Option<String>,
    /// SET ROLE.
    role: Option<String>,
}

impl Whose {
    /// A session that logs in to servers as `login`, where `path` is its search path unless it is that
    /// of the catalogue.
    pub fn new(login: &Arc<str>, path: Option<Vec<String>>) -> Whose {
        Whose {
            login: Arc::clone(login),
            path: path.map(Arc::from),
            authorization: None,
            role: None,
        }
    }

    /// Takes SET ROLE and SET SESSION AUTHORIZATION; the value of a reset is none.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let named = |none: &str| {
            let is_none = |value: &&str| !value.eq_ignore_ascii_case(none);
            value.filter(is_none).map(str::to_owned)
        };
        match name {
            "role" => self.role = named("none"),
            "session_authorization" => {
                self.authorization = named("default");
                self.role = None;
            }
            _ => {}
        }
    }

    fn user(&self) -> &str {
        let other = self.role.as_ref().or(self.authorization.as_ref());
        other.map_or(&*self.login, String::as_str)
    }

    /// Whether everything is as the catalogue has it for a session that sets no search path.
    pub fn is_plain(&self, path: Option<&Vec<String>>) -> bool {
        path.is_none() && self.path.is_none()
    }

    /// The path in effect: the one that the session has set, else its role's, else `default`.
    pub fn effective<'a>(
        &'a self,
        path: Option<&'a Vec<String>>,
        default: &'a [String],
    ) -> Cow<'a, [String]> {
        let path = match (path, &self.path) {
            (Some(set), _) => set,
            (None, Some(own)) => &**own,
            (None, None) => default,
        };
        if !path.iter().any(|schema| schema == USER) {
            return Cow::Borrowed(path);
        }
        let replaced = path.iter().map(|schema| match schema == USER {
            true => self.user().to_owned(),
            false => schema.clone(),
        });
        Cow::Owned(replaced.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_schema_of_the_user_is_that_of_the_current_one() {
        let mut whose = Whose::new(&"alice".into(), None);
        let set = path(&["$user", "public"]);
        let first = |whose: &Whose| whose.effective(Some(&set), &[])[0].clone();
        assert_eq!(first(&whose), "alice");
        whose.set("role", Some("bob"));
        assert_eq!(first(&whose), "bob");
        whose.set("session_authorization", Some("carol"));
        assert_eq!(first(&whose), "carol");
        whose.set("role", Some("bob"));
        whose.set("role", Some("NONE"));
        assert_eq!(first(&whose), "carol");
        whose.set("session_authorization", None);
        assert_eq!(first(&whose), "alice");
        whose.set("search_path", Some("x"));
        assert_eq!(first(&whose), "alice");
    }

    #[test]
    fn what_is_nearest_to_the_session_counts() {
        let default = path(&["public"]);
        let shared = Whose::default();
        assert_eq!(*shared.effective(None, &default), default);
        assert!(shared.is_plain(None));
        let own = Whose::new(&"alice".into(), Some(path(&["$user", "own"])));
        assert_eq!(*own.effective(None, &default), path(&["alice", "own"]));
        assert!(!own.is_plain(None));
        let set = path(&["mine"]);
        assert_eq!(*own.effective(Some(&set), &default), set);
        assert!(!shared.is_plain(Some(&set)));
    }
}
