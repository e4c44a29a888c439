//! Who may do what: API tokens with scopes, people who log in, workers, programs on this machine.

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// See jobs, their history, workers and totals.
    Read,
    /// Submit jobs.
    Submit,
    /// Cancel, retry and reprioritize jobs; drain, suspend and remove workers; set schedules.
    Manage,
    /// Work: register, claim, complete, fail and release.
    Work,
    /// Everything, tokens and secrets of workers included.
    Admin,
}

impl Scope {
    /// The scopes that a token can be given. A token without any has all of them, as in the original, which
    /// stored scopes and never checked them. `Admin` is a property of its own.
    pub const GRANTABLE: [Self; 4] = [Self::Read, Self::Submit, Self::Manage, Self::Work];

    /// The word in the list of scopes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Manage => "manage",
            Self::Work => "work",
            Self::Admin => "admin",
        }
    }

    /// The scopes of these words; `None`, which is all of them, for no words. An unknown word grants nothing.
    #[must_use]
    pub fn parse_all(words: &[String]) -> Option<Vec<Self>> {
        (!words.is_empty()).then(|| words.iter().filter_map(|word| Self::parse(word)).collect())
    }

    /// The scope that can be granted with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::GRANTABLE.into_iter().find(|scope| scope.as_str() == word)
    }
}

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// The holder of an API token.
    Token {
        /// The token's name.
        name: String,
        /// Whether it may do everything.
        is_admin: bool,
        /// What it may do otherwise; `None` for everything but administration.
        scopes: Option<Vec<Scope>>,
    },
    /// A person who has logged in.
    User {
        /// The person's verified email address, or the subject at the provider.
        label: String,
        /// Whether the person may do everything; otherwise read, submit and manage, but not work.
        is_admin: bool,
    },
    /// A worker with its own secret.
    Worker {
        /// Its id.
        id: String,
    },
    /// A program on this machine, without credentials.
    Local,
}

impl Actor {
    /// Whether the request may do what needs `scope`.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        match self {
            Self::Token { is_admin: true, .. } | Self::User { is_admin: true, .. } => true,
            Self::Token { scopes, .. } => {
                scope != Scope::Admin && scopes.as_ref().is_none_or(|scopes| scopes.contains(&scope))
            }
            Self::User { .. } => matches!(scope, Scope::Read | Scope::Submit | Scope::Manage),
            Self::Worker { .. } => scope == Scope::Work,
            Self::Local => scope != Scope::Admin,
        }
    }

    /// Whether the request may act as this worker.
    #[must_use]
    pub fn may_be(&self, worker: &str) -> bool {
        match self {
            Self::Worker { id } => id == worker,
            Self::Token { .. } | Self::User { .. } | Self::Local => self.may(Scope::Work),
        }
    }

    /// The text for entries of journals.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Token { name, .. } => format!("token:{name}"),
            Self::User { label, .. } => format!("user:{label}"),
            Self::Worker { id } => format!("worker:{id}"),
            Self::Local => "local".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(is_admin: bool, scopes: Option<&[Scope]>) -> Actor {
        Actor::Token { name: "t".to_owned(), is_admin, scopes: scopes.map(<[Scope]>::to_vec) }
    }

    #[test]
    fn a_token_may_do_what_its_scopes_say() {
        let reader = token(false, Some(&[Scope::Read]));
        assert!(reader.may(Scope::Read));
        for scope in [Scope::Submit, Scope::Manage, Scope::Work, Scope::Admin] {
            assert!(!reader.may(scope), "{scope:?}");
        }
        let any = token(false, None);
        assert!(Scope::GRANTABLE.into_iter().all(|scope| any.may(scope)) && !any.may(Scope::Admin));
        assert!(token(true, Some(&[Scope::Read])).may(Scope::Admin));
    }

    #[test]
    fn a_worker_works_as_itself_alone_and_a_local_program_administers_nothing() {
        let worker = Actor::Worker { id: "w1".to_owned() };
        assert!(worker.may_be("w1") && !worker.may_be("w2"));
        assert!(worker.may(Scope::Work) && !worker.may(Scope::Read) && !worker.may(Scope::Manage));
        assert!(Actor::Local.may(Scope::Manage) && !Actor::Local.may(Scope::Admin));
        assert!(!token(false, Some(&[Scope::Submit])).may_be("w1"));
    }

    #[test]
    fn a_person_manages_jobs_and_an_administrator_does_everything() {
        let user = |is_admin| Actor::User { label: "a@example.com".to_owned(), is_admin };
        for scope in [Scope::Read, Scope::Submit, Scope::Manage] {
            assert!(user(false).may(scope), "{scope:?}");
        }
        assert!(!user(false).may(Scope::Work) && !user(false).may(Scope::Admin) && !user(false).may_be("w1"));
        assert!(user(true).may(Scope::Admin) && user(true).may_be("w1"));
        assert_eq!(user(false).label(), "user:a@example.com");
    }

    #[test]
    fn scopes_have_words_and_admin_is_not_granted_by_one() {
        for scope in Scope::GRANTABLE {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
        }
        assert_eq!(Scope::parse("admin"), None);
        assert_eq!(Scope::parse_all(&[]), None);
        assert_eq!(
            Scope::parse_all(&["upload".to_owned()]),
            Some(Vec::new()),
            "an unknown word grants nothing"
        );
    }
}
