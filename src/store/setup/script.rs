//! `quipu setup-sql`: the requirements as a script for psql.

use super::credentials::Credentials;
use super::passwords::verifier;
use super::people;
use super::requirement::Requirement;
use super::requirements::{identifier, inside_database, of_database, of_roles};

const HEAD: &str =
    "-- Prepares PostgreSQL for Quipu: roles, database, privileges. Run it with psql as an administrator: a superuser, or a
-- role with CREATEROLE and CREATEDB. It can be run again; each time it gives the roles the passwords below.
-- Roles belong to the whole server: a Quipu that uses another database of this server is locked out until its URLs
-- have these passwords, too.
\\set ON_ERROR_STOP on
";

const BECOME_MEMBER: &str = "-- Only members of quipu_owner can give it a database; undone below.
SELECT 'GRANT quipu_owner TO CURRENT_USER' WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) \\gexec
";

const END_MEMBERSHIP: &str =
    "SELECT 'REVOKE quipu_owner FROM CURRENT_USER' WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) \\gexec
";

/// A script for psql that prepares a server for Quipu, however much of it exists already. It sets the
/// passwords of the roles to `credentials`, as SCRAM verifiers, and the settings of the roles for people. An
/// administrator must run it.
#[must_use]
pub fn script(credentials: &Credentials, database: &str) -> String {
    let mut parts = vec![HEAD.to_owned()];
    parts.extend(of_roles().iter().map(unless_it_holds));
    parts.extend(
        credentials
            .roles()
            .map(|(role, password)| format!("ALTER ROLE {role} PASSWORD '{}';\n", verifier(password))),
    );
    parts.push("-- Settings of the roles for people, who can change them.".to_owned());
    for role in people::PEOPLE {
        parts.extend(people::renewal(role).iter().map(|statement| format!("{statement};\n")));
    }
    parts.push(BECOME_MEMBER.to_owned());
    parts.extend(of_database(database).iter().map(unless_it_holds));
    parts.push(format!("\\connect {}\n", identifier(database)));
    parts.extend(inside_database(database).iter().map(unless_it_holds));
    parts.push(END_MEMBERSHIP.to_owned());
    parts.join("\n")
}

/// A line that makes psql run the statement when the condition is false.
fn unless_it_holds(requirement: &Requirement) -> String {
    let Requirement { holds, statement, .. } = requirement;
    format!("-- {requirement}\nSELECT $statement${statement}$statement$\nWHERE NOT {holds} \\gexec\n")
}
