//! The doors to PostgreSQL. Only this module opens connections.

mod urls;

pub use urls::DatabaseUrls;
