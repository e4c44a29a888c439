//! Messages: what is on the wire.

mod golden_frames;
