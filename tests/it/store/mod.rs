//! The store against a real PostgreSQL behind a real PgBouncer.

mod definitions;
mod documented;
mod erasure;
mod gaps;
mod group_commit;
mod guards;
pub(crate) mod kit;
mod leases;
mod lost_answers;
mod migrating;
mod months;
mod obstructions;
mod old_candidates;
mod old_numbers;
mod outsiders;
mod overtaking;
mod partition_schema;
mod projections;
mod rebase;
mod requests;
mod retention;
mod roles;
mod sightings;
mod slots;
mod statements;
mod ticks;
mod truncation;
