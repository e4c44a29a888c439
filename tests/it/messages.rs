//! Room `messages` as its clients have it: the real binary, two of it on one database.

mod idle;
mod model;
