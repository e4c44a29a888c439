//! Statements that the roles for people cannot run: everything that defines, changes or removes an object.
//!
//! They lack the privileges, but PostgreSQL takes the lock of `CREATE RULE`, `CREATE TRIGGER` and `COMMENT`
//! before it looks at privileges. A session that waits for such a lock keeps all others from the table, and on
//! `pg_authid` it keeps everyone from logging in to the server. An event trigger comes before any lock.
//! PostgreSQL has none for statements on roles and databases; of those the guard ends the sessions.

use super::people::PEOPLE;
use super::requirement::{Requirement, advised};

/// What the event trigger runs. `session_user`, because the procedures of `quipu_writer` run as the owner.
fn body() -> String {
    format!(
        "BEGIN
    IF session_user IN ('{}') THEN
        RAISE EXCEPTION '% is refused for role %', tg_tag, session_user USING ERRCODE = 'insufficient_privilege',
            HINT = 'roles for people read, or call procedures';
    END IF;
END",
        PEOPLE.join("', '")
    )
}

/// The condition on the event trigger of the database in which it is evaluated. Only a superuser can establish
/// it; where none does, a start warns. The function belongs to a superuser: the trigger runs it in the
/// sessions of every role.
pub(super) fn of_statements() -> Requirement {
    let body = body();
    let holds = format!(
        "EXISTS (SELECT FROM pg_event_trigger t JOIN pg_proc p ON p.oid = t.evtfoid
         WHERE t.evtname = 'quipu_refuse_ddl' AND t.evtevent = 'ddl_command_start' AND t.evttags IS NULL AND t.evtenabled IN ('O', 'A')
         AND (SELECT rolsuper FROM pg_roles WHERE oid = p.proowner) AND p.prosrc = $body${body}$body$)"
    );
    let statement = format!(
        "DO $$ BEGIN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        DROP EVENT TRIGGER IF EXISTS quipu_refuse_ddl;
        CREATE OR REPLACE FUNCTION public.quipu_refuse_ddl() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body${body}$body$;
        ALTER FUNCTION public.quipu_refuse_ddl() OWNER TO CURRENT_USER;
        REVOKE ALL ON FUNCTION public.quipu_refuse_ddl() FROM PUBLIC;
        COMMENT ON FUNCTION public.quipu_refuse_ddl() IS 'event trigger: refuses statements of the roles for people that define, change or remove objects, before they take a lock';
        CREATE EVENT TRIGGER quipu_refuse_ddl ON ddl_command_start EXECUTE FUNCTION public.quipu_refuse_ddl();
    ELSE
        RAISE WARNING 'only a superuser can refuse CREATE RULE and its like to the roles for people before they take a lock';
    END IF;
    END $$"
    );
    advised("roles for people define nothing, so they take no lock that stops others", holds, statement)
}
