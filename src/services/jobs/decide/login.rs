//! Who may log in, and where a browser goes afterwards.

/// Groups of the operator's settings.
#[derive(Debug, Clone, Copy)]
pub struct GroupRules<'a> {
    /// Members may log in; empty for everyone.
    pub allowed: &'a [String],
    /// Members may log in, and do everything.
    pub admin: &'a [String],
}

/// A login that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The groups by which it is.
    pub groups: Vec<String>,
    /// Whether the person may do everything.
    pub is_admin: bool,
}

/// Whether a person of these groups may log in; `None` for no. Only groups that the operator names are kept.
#[must_use]
pub fn admit(groups: &[String], rules: GroupRules<'_>) -> Option<Admission> {
    let mut matching: Vec<String> =
        groups.iter().filter(|g| rules.admin.contains(g) || rules.allowed.contains(g)).cloned().collect();
    matching.sort();
    matching.dedup();
    let is_admin = matching.iter().any(|group| rules.admin.contains(group));
    let is_allowed = rules.allowed.is_empty() || !matching.is_empty();
    is_allowed.then_some(Admission { groups: matching, is_admin })
}

/// The label of a person in entries: the verified email address, else the subject. Not the name, which people may
/// be able to choose.
#[must_use]
pub fn user_label(email: Option<&str>, subject: &str) -> String {
    email.unwrap_or(subject).to_owned()
}

/// Longest path to return to, in bytes.
const RETURN_BYTES_MAX: usize = 1_024;

/// The path of this listener in `wanted`, else `/`. Anything that a browser could read as another host is not a
/// path: two slashes, backslashes, and control characters, which browsers leave out.
#[must_use]
pub fn local_path(wanted: Option<&str>) -> &str {
    let is_local = |path: &&str| {
        path.starts_with('/')
            && !path.starts_with("//")
            && path.len() <= RETURN_BYTES_MAX
            && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    wanted.filter(is_local).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn groups_decide_who_logs_in_and_who_administers() {
        let (users, admins, none) = (words(&["users", "staff"]), words(&["admins"]), words(&[]));
        let rules = GroupRules { allowed: &users, admin: &admins };
        let admitted = |groups: &[&str], rules| admit(&words(groups), rules).map(|a| (a.groups, a.is_admin));
        assert_eq!(admitted(&["users", "other"], rules), Some((words(&["users"]), false)));
        assert_eq!(admitted(&["users", "admins", "users"], rules), Some((words(&["admins", "users"]), true)));
        assert_eq!(admitted(&["admins"], rules), Some((words(&["admins"]), true)));
        assert_eq!(admitted(&["other", "Users"], rules), None);
        assert_eq!(admitted(&[], rules), None);
        let open = GroupRules { allowed: &none, admin: &admins };
        assert_eq!(admitted(&[], open), Some((none.clone(), false)));
        assert_eq!(admitted(&["admins"], open), Some((words(&["admins"]), true)));
        let closed = GroupRules { allowed: &none, admin: &none };
        assert_eq!(
            admitted(&["admins"], closed),
            Some((none.clone(), false)),
            "no group is one of administrators"
        );
    }

    #[test]
    fn a_browser_returns_to_a_path_of_this_listener_alone() {
        for path in ["/", "/jobs?status=failed&x=%2F%2F", "/jobs/7#history"] {
            assert_eq!(local_path(Some(path)), path);
        }
        let long = format!("/{}", "x".repeat(1_024));
        for other in [
            "//evil.example",
            "/\\evil.example",
            "https://evil.example/",
            "jobs",
            "",
            "/\t/evil",
            "/a b",
            "/ü",
            &long,
        ] {
            assert_eq!(local_path(Some(other)), "/", "{other}");
        }
        assert_eq!(local_path(None), "/");
    }

    #[test]
    fn a_person_is_named_by_what_cannot_be_chosen() {
        assert_eq!(user_label(Some("a@example.com"), "7f"), "a@example.com");
        assert_eq!(user_label(None, "7f"), "7f");
    }
}
