//! The archive as its user has it: the real binary, its own PostgreSQL and PgBouncer, relays of another project.

mod chaos;
mod commands;
mod crashes;
mod farm;
mod hostile;
mod imports;
mod kit;
mod memory;
mod modes;
mod monitor;
mod odd_lines;
mod relays;
mod signals;
mod strange_relays;
mod tor;
