//! Tests of jobs: the HTTP interface, the queue through the library, and its behaviour when parts of it are
//! killed, late or doubled.

mod access;
mod chaos;
mod cli;
mod client;
mod dashboard;
mod file_kit;
mod files;
mod files_hostile;
mod golden;
mod hostile_queue;
mod hostile_workers;
mod kit;
mod late;
mod lists;
mod lives;
mod login;
mod login_kit;
mod login_pages;
mod login_provider;
mod many;
mod model;
mod moving_in;
mod pages;
mod pages_admin;
mod processes;
mod rules;
mod s3;
mod sql;
mod stream;
mod transfer;
mod upload;
mod waiting;
mod webhook_kit;
mod webhooks;
mod worker;
