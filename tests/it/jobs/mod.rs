//! Tests of jobs: the HTTP interface, the queue through the library, and its behaviour when parts of it are
//! killed, late or doubled.

mod access;
mod cli;
mod dashboard;
mod golden;
mod kit;
mod late;
mod lives;
mod many;
mod pages;
mod processes;
mod rules;
mod sql;
mod stream;
mod waiting;
