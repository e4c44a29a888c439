//! Settings of the roles for people. A role may change and reset its own settings and its password without
//! any privilege, so each start that can sets them again, and other starts only warn.

use super::requirement::{Requirement, advised};

/// Roles for people and their programs. Each has a connection limit, so that enough of PostgreSQL's
/// connections remain for the services.
pub(super) const PEOPLE: [&str; 3] = ["quipu_reader", "quipu_messages_reader", "quipu_writer"];

/// A setting of a role.
struct Setting {
    name: &'static str,
    value: &'static str,
    /// The values that another installation or an operator may have chosen, as a regular expression.
    accepted: &'static str,
}

/// A time limit other than 0, which switches the limit off. A fraction may be rounded to 0.
const TIME: &str = "[1-9][0-9]*(ms|s|min|h|d)?";

static LIMITS: [Setting; 3] = [
    Setting { name: "statement_timeout", value: "60s", accepted: TIME },
    Setting { name: "idle_in_transaction_session_timeout", value: "60s", accepted: TIME },
    Setting { name: "lock_timeout", value: "10s", accepted: TIME },
];

static READ_ONLY: Setting =
    Setting { name: "default_transaction_read_only", value: "on", accepted: "(on|true|yes|1)" };

/// What keeps a session from filling the server's log with messages (`RAISE LOG`) and failed statements. Only
/// a superuser can set these, and the role can neither change nor reset them.
static LOGS: [Setting; 3] = [
    Setting { name: "log_min_messages", value: "fatal", accepted: "(fatal|panic)" },
    Setting { name: "log_min_error_statement", value: "panic", accepted: "(fatal|panic)" },
    Setting { name: "log_min_duration_statement", value: "-1", accepted: "-1" },
];

/// The settings of one role, without those that only a superuser can set.
fn settings(role: &str) -> impl Iterator<Item = &'static Setting> {
    LIMITS.iter().chain((role != "quipu_writer").then_some(&READ_ONLY))
}

/// A boolean SQL expression: whether the role has the setting with an accepted value. `role` is an
/// expression of type name.
fn has_setting(role: &str, setting: &Setting) -> String {
    let Setting { name, accepted, .. } = setting;
    format!(
        "EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS c
         WHERE r.rolname = {role} AND s.setdatabase = 0 AND c ~* '^{name}={accepted}$')"
    )
}

/// What a start warns about.
pub(super) fn of_people() -> Vec<Requirement> {
    let mut all = Vec::new();
    for role in PEOPLE {
        let known: Vec<&str> = settings(role).chain(&LOGS).map(|setting| setting.name).collect();
        all.push(advised(
            format!("role {role} has no other settings than Quipu's"),
            format!(
                "NOT EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS c
                 WHERE r.rolname = '{role}' AND (s.setdatabase <> 0 OR split_part(c, '=', 1) <> ALL ('{{{}}}')))",
                known.join(",")
            ),
            reset_other(role, &known),
        ));
        all.extend(settings(role).map(|setting| {
            advised(
                format!("role {role} has a {}", setting.name),
                has_setting(&format!("'{role}'"), setting),
                set(role, setting),
            )
        }));
    }
    let has_all = LOGS.each_ref().map(|setting| has_setting("p", setting)).join(" AND ");
    all.push(advised(
        format!("roles {} fill no log of the server", PEOPLE.join(", ")),
        format!(
            "NOT EXISTS (SELECT FROM unnest('{{{}}}'::name[]) p WHERE NOT ({has_all}))",
            PEOPLE.join(",")
        ),
        set_logs(&PEOPLE),
    ));
    all
}

/// The statements that leave one of these roles with exactly Quipu's settings.
pub(super) fn renewal(role: &str) -> Vec<String> {
    let mut all = vec![reset_all(role)];
    all.extend(settings(role).map(|setting| set(role, setting)));
    all.push(set_logs(&[role]));
    all
}

fn set(role: &str, Setting { name, value, .. }: &Setting) -> String {
    format!("ALTER ROLE {role} SET {name} = '{value}'")
}

/// Removes every setting of the role, also those for one database.
fn reset_all(role: &str) -> String {
    format!(
        "DO $$ DECLARE place text; BEGIN
        FOR place IN SELECT coalesce('IN DATABASE ' || quote_ident(d.datname), '')
                     FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
                     WHERE r.rolname = '{role}' LOOP
            EXECUTE format('ALTER ROLE {role} %s RESET ALL', place);
        END LOOP;
    END $$"
    )
}

/// Removes the settings for one database, and those whose name is not in `known`.
fn reset_other(role: &str, known: &[&str]) -> String {
    format!(
        "DO $$ DECLARE place text; name text; BEGIN
        FOR place, name IN SELECT coalesce('IN DATABASE ' || quote_ident(d.datname), ''), split_part(c, '=', 1)
                     FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase,
                          unnest(s.setconfig) AS c
                     WHERE r.rolname = '{role}' AND (s.setdatabase <> 0 OR split_part(c, '=', 1) <> ALL ('{{{}}}')) LOOP
            EXECUTE format('ALTER ROLE {role} %s RESET %I', place, name);
        END LOOP;
    END $$",
        known.join(",")
    )
}

fn set_logs(roles: &[&str]) -> String {
    let statements: Vec<String> = roles
        .iter()
        .flat_map(|role| LOGS.iter().map(move |setting| format!("        {};\n", set(role, setting))))
        .collect();
    format!(
        "DO $$ BEGIN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
{}    ELSE
        RAISE WARNING 'only a superuser can keep the roles for people from writing to the log of the server';
    END IF;
    END $$",
        statements.concat()
    )
}
