//! The private PostgreSQL and PgBouncer: doors, clean stop, crashes of each part, refused folders.

mod doors;
mod external;
mod kit;
mod lives;
mod refusals;
mod tls;
