//! The private PostgreSQL and PgBouncer: doors, clean stop, crashes of each part, refused folders.

mod doors;
mod kit;
mod lives;
mod pooler;
mod refusals;
