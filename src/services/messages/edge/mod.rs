//! How clients talk to the room.

pub mod frame;
