//! Tests of the monitor against peers on the loopback, a real PostgreSQL and relays of other projects.

mod documents;
mod kit;
mod mmdb;
mod places;
mod probes;
mod reports;
mod rounds;
mod stub;
mod third_parties;
