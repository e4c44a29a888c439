//! Messages: what is on the wire, and what becomes of it when everything may die.

mod golden_frames;
mod idle;
mod model;
