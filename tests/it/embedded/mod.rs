//! The private PostgreSQL and PgBouncer: database URLs, clean stop, crashes of each part, refused folders; and
//! what a process does with the URLs that it has.

mod doors;
mod external;
mod kit;
mod links;
mod lives;
mod people;
mod readiness;
mod refusals;
mod signals;
mod space;
mod tls;
mod without_owner;
