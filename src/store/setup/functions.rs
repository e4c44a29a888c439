//! Functions of PostgreSQL that every role may call, and that are closed to roles without rights.

use super::requirement::{Requirement, advised, needed};

/// Functions that write to disk, also in read-only transactions: large objects, which outlive the session and
/// have no bound, and entries of the WAL.
const WRITING: &str = "p.proname = ANY ('{lo_creat,lo_create,lo_from_bytea,lo_open,lo_put,lo_truncate,lo_truncate64,lowrite,pg_logical_emit_message}')";

/// Functions that hold up the services: advisory locks, which a statement that PostgreSQL cannot interrupt may
/// keep for hours, and which fill the table of locks that all sessions share; and snapshots in files, which
/// stay until the transaction ends.
const HOLDING: &str = "(p.proname ~ '^pg_(try_)?advisory_' OR p.proname = 'pg_export_snapshot')";

/// Functions that assign a transaction id, also in read-only transactions. In a loop with COMMIT they use up
/// 60,000 ids a second, and PostgreSQL has 2^31 before tables must be frozen.
const NUMBERING: &str = "p.proname IN ('pg_current_xact_id', 'txid_current')";

/// Functions that maintain an index or, from PostgreSQL 18 on, statistics. They wait for a lock before they look at privileges, also in read-only
/// transactions, and PostgreSQL cancels the autovacuum of a table for which a session waits.
const MAINTAINING: &str = "p.proname IN ('brin_summarize_new_values', 'brin_summarize_range', 'brin_desummarize_range',
    'gin_clean_pending_list', 'pg_restore_relation_stats', 'pg_restore_attribute_stats', 'pg_clear_relation_stats',
    'pg_clear_attribute_stats')";

/// The roles that call [`HOLDING`] and [`NUMBERING`]; `pg_dump --jobs` as the owner exports a snapshot, and the
/// columns `xid` of the journals have such a function as their default.
const HOLDERS: &str = "quipu, quipu_session, quipu_owner";

/// The conditions on functions in the database in which they are evaluated. Only a superuser can establish
/// them; where none does, a start warns.
pub(super) fn of_functions() -> Vec<Requirement> {
    let grant = format!("EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {HOLDERS}', f);");
    vec![
        open("Quipu's services may take advisory locks", HOLDING, &grant),
        open("Quipu's services may learn the id of their transaction", NUMBERING, &grant),
        closed("roles without rights write no large objects", WRITING, ""),
        closed("roles without rights take no advisory lock and export no snapshot", HOLDING, &grant),
        closed("roles without rights use up no transaction ids by a function", NUMBERING, &grant),
        closed("roles without rights maintain no indexes by a function", MAINTAINING, ""),
    ]
}

/// The functions are open to [`HOLDERS`].
fn open(what: &str, functions: &str, grant: &str) -> Requirement {
    let holders = "FROM pg_roles r WHERE r.rolname IN ('quipu', 'quipu_session', 'quipu_owner')";
    let holds = format!(
        "NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND {functions}
         AND EXISTS (SELECT {holders} AND NOT has_function_privilege(r.oid, p.oid, 'EXECUTE')))"
    );
    needed(what, holds, for_each(functions, grant))
}

fn closed(what: &str, functions: &str, before: &str) -> Requirement {
    let holds = format!(
        "NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace
         AND {functions} AND has_function_privilege('public', p.oid, 'EXECUTE'))"
    );
    let revoke = format!("{before} EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);");
    advised(what, holds, for_each(functions, &revoke))
}

/// Runs `action` for each function `f`, as a superuser alone.
fn for_each(functions: &str, action: &str) -> String {
    format!(
        "DO $$ DECLARE f regprocedure; BEGIN
        IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            FOR f IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND {functions} LOOP
                {action}
            END LOOP;
        ELSE
            RAISE WARNING 'only a superuser can change who may call functions of PostgreSQL';
        END IF;
    END $$"
    )
}
