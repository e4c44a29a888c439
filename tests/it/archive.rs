//! The archive as its user has it: the real binary, its own PostgreSQL and PgBouncer, relays of another project.

mod commands;
mod commands_relays;
mod crashes;
mod hostile;
mod implementations;
mod imports;
mod kit;
mod memory;
mod modes;
mod odd_lines;
mod relays;
mod signals;
mod vanishing;
