//! Tests of jobs: the HTTP interface, the queue through the library, and its behaviour when parts of it are
//! killed, late or doubled.

mod access;
mod cli;
mod golden;
mod kit;
mod late;
mod lives;
mod login;
mod login_kit;
mod login_provider;
mod many;
mod processes;
mod rules;
mod sql;
mod stream;
mod waiting;
