//! Tests of the archive as a user runs it: the real binary, its own PostgreSQL and PgBouncer, and relays of
//! other projects.

mod candidates;
mod chaos;
mod commands;
mod commands_relays;
mod crashes;
mod farm;
mod finder;
mod first_look;
mod floods;
mod hostile;
mod implementations;
mod imports;
pub(crate) mod kit;
mod liars;
mod live;
mod memory;
mod modes;
mod monitor;
mod odd_lines;
mod oversized;
mod private_seeds;
mod relays;
mod signals;
mod slow_relays;
mod strange_relays;
mod tor;
mod validator;
mod vanishing;
mod watching;
