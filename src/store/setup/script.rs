//! `quipu setup-sql`: the requirements as a script for psql.

use super::credentials::Credentials;
use super::passwords::verifier;
use super::requirements::{Requirement, identifier, inside_database, of_database, of_roles};

/// A script for psql that prepares a server for Quipu, whatever of it is there already. It gives the roles the passwords of
/// `credentials`, as SCRAM verifiers, and must be run by an administrator.
#[must_use]
pub fn script(credentials: &Credentials, database: &str) -> String {
    let mut text = "-- Prepares PostgreSQL for Quipu: roles, database, privileges. Run it with psql as an administrator: a superuser, or a
-- role with CREATEROLE and CREATEDB. It can be run again; each time it gives the roles the passwords below.
\\set ON_ERROR_STOP on

"
    .to_owned();
    of_roles().iter().for_each(|requirement| add(&mut text, requirement));
    for (role, password) in credentials.roles() {
        text += &format!("ALTER ROLE {role} PASSWORD '{}';\n\n", verifier(password));
    }
    text += "-- Only members of quipu_owner can give it a database; undone below.\nSELECT 'GRANT quipu_owner TO CURRENT_USER' WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) \\gexec\n\n";
    of_database(database).iter().for_each(|requirement| add(&mut text, requirement));
    text += &format!("\\connect {}\n\n", identifier(database));
    inside_database(database).iter().for_each(|requirement| add(&mut text, requirement));
    text += "SELECT 'REVOKE quipu_owner FROM CURRENT_USER' WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) \\gexec\n";
    text
}

/// The statement, run by psql when the condition is false.
fn add(text: &mut String, requirement: &Requirement) {
    let Requirement { holds, statement, .. } = requirement;
    *text +=
        &format!("-- {requirement}\nSELECT $statement${statement}$statement$\nWHERE NOT {holds} \\gexec\n\n");
}
