//! The addresses of the four doors (DESIGN section 4).

use crate::base::Secret;

/// Where PostgreSQL is reached, once for each door. Every URL carries its role's password.
#[derive(Debug, Clone)]
pub struct DatabaseUrls {
    /// Role `quipu` through PgBouncer, transaction pooling: append and driving rows.
    pub write: Secret,
    /// Role `quipu_session` through PgBouncer, session pooling: current reads, LISTEN.
    pub session: Secret,
    /// Role `quipu_session` on a replica when there is one, else the same as `session`: analytics.
    pub read: Secret,
    /// Role `quipu_owner`, direct to PostgreSQL: migrations, months, retention, erasure.
    pub owner: Secret,
}
