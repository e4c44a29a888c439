//! The rules of the room: pure functions, to which time and chance are arguments.

pub mod authorization;
pub mod breaker;
pub mod choice;
pub mod cursor;
pub mod fan_out;
pub mod hints;
pub mod media;
pub mod name;
pub mod quorum;
pub mod range;
pub mod references;
pub mod repair;
pub mod report;
