//! What Quipu requires of the server: each requirement has a condition in SQL and the statement that
//! establishes it.
//!
//! The conditions read only the catalog, so their result depends neither on the role that evaluates them nor
//! on the requirements that are not met.

use std::fmt;

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

/// Roles for people and their programs. Each has a connection limit, so that enough of PostgreSQL's
/// connections remain for the services.
const PEOPLE: [&str; 3] = ["quipu_reader", "quipu_messages_reader", "quipu_writer"];
const PEOPLE_CONNECTIONS_MAX: u32 = 20;

/// Settings of the roles for people.
const SETTINGS: [(&str, &[(&str, &str)]); 3] = [
    ("quipu_reader", &[LIMITS[0], LIMITS[1], LIMITS[2], READ_ONLY]),
    ("quipu_messages_reader", &[LIMITS[0], LIMITS[1], LIMITS[2], READ_ONLY]),
    ("quipu_writer", &LIMITS),
];
const LIMITS: [(&str, &str); 3] =
    [("statement_timeout", "60s"), ("idle_in_transaction_session_timeout", "60s"), ("lock_timeout", "10s")];
const READ_ONLY: (&str, &str) = ("default_transaction_read_only", "on");

/// Journals that only the owner writes.
const OWNERS_JOURNALS: [&str; 3] = ["era", "erasure", "implementation_log"];

/// One requirement. `Display` describes it in words.
#[derive(Debug, Clone)]
pub struct Requirement {
    what: String,
    /// The condition, a boolean SQL expression.
    pub(super) holds: String,
    /// The statement that establishes it; contains no secret.
    pub statement: String,
    /// Whether Quipu refuses to start without it. Other requirements are settings that help.
    pub(super) is_needed: bool,
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

fn needed(what: impl Into<String>, holds: impl Into<String>, statement: impl Into<String>) -> Requirement {
    Requirement { what: what.into(), holds: holds.into(), statement: statement.into(), is_needed: true }
}

/// The roles, their attributes, memberships and settings.
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
    for (role, settings) in SETTINGS {
        all.extend(settings.iter().map(|(setting, value)| role_setting(role, setting, value)));
    }
    all.push(compression());
    all
}

/// A setting of a role. Any value that the operator chose is accepted.
fn role_setting(role: &str, setting: &str, value: &str) -> Requirement {
    needed(
        format!("role {role} has a {setting}"),
        has_setting(role, setting),
        format!("ALTER ROLE {role} SET {setting} = '{value}'"),
    )
}

fn has_setting(role: &str, setting: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS c
         WHERE r.rolname = '{role}' AND c LIKE '{setting}=%')"
    )
}

/// Full-page images in the WAL, compressed with lz4, if the server supports it and the administrator may set
/// it. With PostgreSQL's own method, a batch that fills gaps in old pages spends a fifteenth of its time on
/// compression.
fn compression() -> Requirement {
    let statement = "DO $$ BEGIN
        ALTER ROLE quipu SET wal_compression = lz4;
    EXCEPTION WHEN invalid_parameter_value OR insufficient_privilege THEN NULL;
    END $$";
    Requirement {
        is_needed: false,
        ..needed("role quipu compresses its WAL", has_setting("quipu", "wal_compression"), statement)
    }
}

/// Functions of PostgreSQL that every role may call and that write to disk, also in read-only transactions:
/// large objects, which outlive the session and have no bound, and entries of the WAL.
const WRITING_FUNCTIONS: &str = "'{lo_creat,lo_create,lo_from_bytea,lo_open,lo_put,lo_truncate,lo_truncate64,lowrite,pg_logical_emit_message}'";

/// Closes [`WRITING_FUNCTIONS`] to PUBLIC. Only a superuser can; without one they stay open.
fn large_objects() -> Requirement {
    let open = format!(
        "FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace
         AND p.proname = ANY ({WRITING_FUNCTIONS}) AND has_function_privilege('public', p.oid, 'EXECUTE')"
    );
    let statement = format!(
        "DO $$ DECLARE f regprocedure; BEGIN
        IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            FOR f IN SELECT p.oid::regprocedure {open} LOOP EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f); END LOOP;
        END IF;
    END $$"
    );
    Requirement {
        is_needed: false,
        ..needed(
            "roles without rights write no large objects",
            format!("NOT EXISTS (SELECT {open})"),
            statement,
        )
    }
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
        Requirement {
            is_needed: false,
            ..needed(
                format!("database {identifier} is closed to roles that are not Quipu's, if quipu_owner owns it"),
                format!(
                    "NOT EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                     WHERE d.datname = {literal} AND pg_get_userbyid(d.datdba) = 'quipu_owner' AND a.grantee = 0)"
                ),
                format!("REVOKE ALL ON DATABASE {identifier} FROM PUBLIC"),
            )
        },
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
    all.push(large_objects());
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
