//! The doors to PostgreSQL. Only this module opens connections.

pub mod embedded;
mod urls;

pub use urls::DatabaseUrls;
