//! What Quipu requires of the server: each requirement has a condition in SQL and the statement that
//! establishes it.
//!
//! The conditions read only the catalog, so their result depends neither on the role that evaluates them nor
//! on the requirements that are not met.

use super::functions::of_functions;
use super::people::PEOPLE;
use super::requirement::{Requirement, advised, helpful, needed};
use super::statements::of_statements;
use crate::store::registry::{TABLES, TableKind};

pub(in crate::store) const ROLES: [&str; 6] =
    ["quipu_owner", "quipu", "quipu_session", "quipu_reader", "quipu_messages_reader", "quipu_writer"];

/// Roles and their members. The service is a member of the roles for people so that it may end their sessions
/// when they block its writers (`quipu_end_obstructions`).
const MEMBERS: [(&str, &str); 5] = [
    ("quipu", "quipu_session"),
    ("quipu_reader", "quipu_messages_reader"),
    ("quipu_reader", "quipu"),
    ("quipu_messages_reader", "quipu"),
    ("quipu_writer", "quipu"),
];

/// Connections of each role for people.
const PEOPLE_CONNECTIONS_MAX: u32 = 20;

/// The smallest `max_locks_per_transaction` that fits a query over all months.
const LOCKS_MIN: u32 = 1024;

/// Closes the databases that every PostgreSQL has to roles without rights.
pub(super) const CLOSE_OTHER_DATABASES: &str =
    "REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC";

/// Journals that only the owner writes.
const OWNERS_JOURNALS: [&str; 3] = ["era", "erasure", "implementation_log"];

/// The roles, their attributes and memberships. `people.rs` has the settings of the roles for people.
pub(super) fn of_roles() -> Vec<Requirement> {
    let mut all = Vec::new();
    for role in ROLES {
        all.push(needed(
            format!("role {role} exists"),
            format!("EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')"),
            format!("CREATE ROLE {role} LOGIN"),
        ));
        all.push(needed(
            format!("role {role} may log in"),
            format!("EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}' AND rolcanlogin)"),
            format!("ALTER ROLE {role} LOGIN"),
        ));
        all.push(needed(
            format!("role {role} has no attribute of an administrator"),
            format!(
                "NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}'
                 AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls))"
            ),
            format!("ALTER ROLE {role} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"),
        ));
    }
    all.extend(MEMBERS.map(|(role, member)| {
        needed(
            format!("role {member} has the privileges of role {role}"),
            format!(
                "EXISTS (SELECT FROM pg_roles member, pg_roles role WHERE member.rolname = '{member}' AND role.rolname = '{role}'
                 AND pg_has_role(member.oid, role.oid, 'USAGE'))"
            ),
            format!("GRANT {role} TO {member}"),
        )
    }));
    for role in PEOPLE {
        all.push(needed(
            format!("role {role} has a connection limit"),
            format!("EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}' AND rolconnlimit >= 0)"),
            format!("ALTER ROLE {role} CONNECTION LIMIT {PEOPLE_CONNECTIONS_MAX}"),
        ));
    }
    all.push(compression());
    all.push(statistics());
    all
}

/// The observer sees the transactions of all roles, so that the metric of the longest one includes dumps and
/// migrations. Only a superuser, or a role with ADMIN OPTION on `pg_read_all_stats`, can grant it.
fn statistics() -> Requirement {
    let statement = "DO $$ BEGIN
        GRANT pg_read_all_stats TO quipu_session;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE WARNING 'only a superuser can let quipu_session see the transactions of other roles';
    END $$";
    let holds = "EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'quipu_session'
         AND pg_has_role(r.oid, 'pg_read_all_stats'::name, 'USAGE'))";
    advised("role quipu_session sees the transactions of all roles (pg_read_all_stats)", holds, statement)
}

/// Full-page images in the WAL, compressed with lz4, if the server supports it and the administrator may set
/// it. With PostgreSQL's own method, a batch that fills gaps in old pages spends a fifteenth of its time on
/// compression.
fn compression() -> Requirement {
    let statement = "DO $$ BEGIN
        ALTER ROLE quipu SET wal_compression = lz4;
    EXCEPTION WHEN invalid_parameter_value OR insufficient_privilege THEN NULL;
    END $$";
    let holds = "EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS c
         WHERE r.rolname = 'quipu' AND c LIKE 'wal_compression=%')";
    helpful("role quipu compresses its WAL", holds, statement)
}

/// Queries over all months lock every partition with its indexes, and hours of payloads are made in batches.
fn room_for_locks() -> Requirement {
    advised(
        format!("max_locks_per_transaction is at least {LOCKS_MIN}"),
        format!("current_setting('max_locks_per_transaction')::integer >= {LOCKS_MIN}"),
        format!("-- set max_locks_per_transaction = {LOCKS_MIN} in postgresql.conf and restart PostgreSQL"),
    )
}

/// A prepared transaction has no session: its locks stay, also over a restart, and the guard cannot end it.
fn no_prepared_transactions() -> Requirement {
    advised(
        "max_prepared_transactions is 0",
        "current_setting('max_prepared_transactions')::integer = 0",
        "-- set max_prepared_transactions = 0 in postgresql.conf and restart PostgreSQL",
    )
}

/// The database and the privileges on it. The statements run in any database of the server.
pub(super) fn of_database(name: &str) -> Vec<Requirement> {
    let (literal, identifier) = (literal(name), identifier(name));
    let mut all = vec![
        needed(
            format!("database {identifier} exists"),
            format!("EXISTS (SELECT FROM pg_database WHERE datname = {literal})"),
            format!(
                "CREATE DATABASE {identifier} OWNER quipu_owner TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C'"
            ),
        ),
        // Only for a database that Quipu owns: other databases may serve other programs.
        helpful(
                format!("database {identifier} is closed to roles that are not Quipu's, if quipu_owner owns it"),
                format!(
                    "NOT EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                     WHERE d.datname = {literal} AND pg_get_userbyid(d.datdba) = 'quipu_owner' AND a.grantee = 0)"
                ),
                format!("REVOKE ALL ON DATABASE {identifier} FROM PUBLIC"),
),
        needed(
            format!("database {identifier} is encoded in UTF8"),
            format!(
                "NOT EXISTS (SELECT FROM pg_database WHERE datname = {literal} AND pg_encoding_to_char(encoding) <> 'UTF8')"
            ),
            "-- choose a database made with ENCODING 'UTF8': an existing one cannot be changed",
        ),
    ];
    let privileges = ROLES.map(|role| (role, "CONNECT"));
    let temporary = [("quipu_owner", "CREATE"), ("quipu_owner", "TEMPORARY"), ("quipu", "TEMPORARY")];
    for (role, privilege) in privileges.into_iter().chain(temporary) {
        all.push(needed(
            format!("role {role} has the privilege {privilege} on database {identifier}"),
            format!(
                "EXISTS (SELECT FROM pg_roles r, pg_database d WHERE r.rolname = '{role}' AND d.datname = {literal}
                 AND has_database_privilege(r.oid, d.oid, '{privilege}'))"
            ),
            format!("GRANT {privilege} ON DATABASE {identifier} TO {role}"),
        ));
    }
    all
}

/// The databases that every PostgreSQL has, on a server that serves the database `name` alone: no other database and
/// no other role that logs in and is not a superuser. In a database that is open to roles without rights they could
/// take advisory locks. On any other server these databases may serve other programs.
pub(super) fn of_other_databases(name: &str) -> Requirement {
    let holds = format!(
        "EXISTS (SELECT FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1', {}))
         OR EXISTS (SELECT FROM pg_roles WHERE rolcanlogin AND NOT rolsuper AND rolname <> ALL ('{{{}}}'))
         OR NOT EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
             WHERE d.datname IN ('postgres', 'template1') AND a.grantee = 0)",
        literal(name),
        ROLES.join(",")
    );
    helpful(
        "the databases postgres and template1 are closed to other roles, if the server serves Quipu alone",
        format!("({holds})"),
        CLOSE_OTHER_DATABASES,
    )
}

/// Privileges on schema `public`. The statements run in the database itself.
pub(super) fn inside_database(name: &str) -> Vec<Requirement> {
    let usage = ROLES.map(|role| (role, "USAGE"));
    let requirement = |(role, privilege)| {
        needed(
            format!("role {role} has the privilege {privilege} on schema public of database {}", identifier(name)),
            format!(
                "EXISTS (SELECT FROM pg_roles r, pg_namespace n WHERE r.rolname = '{role}' AND n.nspname = 'public'
                 AND has_schema_privilege(r.oid, n.oid, '{privilege}'))"
            ),
            format!("GRANT {privilege} ON SCHEMA public TO {role}"),
        )
    };
    let mut all: Vec<Requirement> =
        usage.into_iter().chain([("quipu_owner", "CREATE")]).map(requirement).collect();
    // In a database made before PostgreSQL 15, every role may create functions beside Quipu's.
    all.push(needed(
        format!("schema public of database {} is closed to functions and tables of other roles", identifier(name)),
        "NOT EXISTS (SELECT FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
         WHERE n.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE')",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    ));
    all.extend(of_functions());
    all.push(of_statements());
    all.push(room_for_locks());
    all.push(no_prepared_transactions());
    all
}

/// The service's privileges on each existing table. The migrations grant them; an operator may have revoked
/// one.
pub(super) fn of_tables() -> Vec<Requirement> {
    let mut all = Vec::new();
    for (table, kind) in TABLES {
        let privileges: &[&str] = match kind {
            TableKind::Schema => continue,
            TableKind::Journal if OWNERS_JOURNALS.contains(table) => &["SELECT"],
            TableKind::Journal => &["SELECT", "INSERT"],
            TableKind::Projection | TableKind::Working => &["SELECT", "INSERT", "UPDATE", "DELETE"],
        };
        for privilege in privileges {
            all.push(needed(
                format!("role quipu has the privilege {privilege} on table {table}"),
                format!(
                    "NOT EXISTS (SELECT FROM pg_roles r, pg_class c WHERE r.rolname = 'quipu' AND c.relname = '{table}'
                     AND c.relnamespace = 'public'::regnamespace AND NOT has_table_privilege(r.oid, c.oid, '{privilege}'))"
                ),
                format!("GRANT {privilege} ON TABLE {table} TO quipu"),
            ));
        }
    }
    all
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name in double quotes.
pub(super) fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
