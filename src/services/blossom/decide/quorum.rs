//! Whether enough upstreams have taken a blob, and what a client is told if they have not.

/// How an upload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quorum {
    /// Enough upstreams have it.
    Reached,
    /// Enough may still take it.
    Open,
    /// Too few are left.
    Lost,
}

/// How an upload stands that needs `needed` more copies, of which `taken` are made and `running` may be.
#[must_use]
pub fn quorum(needed: usize, taken: usize, running: usize) -> Quorum {
    if taken >= needed {
        Quorum::Reached
    } else if taken + running >= needed {
        Quorum::Open
    } else {
        Quorum::Lost
    }
}

/// Statuses of upstreams that lie with the client, so that it can do something about them.
const OF_CLIENTS: [u16; 4] = [401, 402, 413, 415];

/// The status for the client of an upload without a quorum (BL-PX.6): the one that the upstreams that failed share, if it lies with the
/// client; else 502.
#[must_use]
pub fn status_without_quorum(failures: &[Option<u16>]) -> u16 {
    match failures {
        [Some(first), rest @ ..] if OF_CLIENTS.contains(first) && rest.iter().all(|s| *s == Some(*first)) => {
            *first
        }
        _ => 502,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bl_px_3_fewer_copies_than_needed_are_no_success() {
        assert_eq!(quorum(2, 2, 0), Quorum::Reached);
        assert_eq!(quorum(2, 1, 1), Quorum::Open);
        assert_eq!(quorum(2, 1, 0), Quorum::Lost);
        assert_eq!(quorum(2, 0, 1), Quorum::Lost);
        assert_eq!(quorum(0, 0, 0), Quorum::Reached, "enough copies are there already");
    }

    #[test]
    fn bl_px_6_upstreams_that_share_a_status_of_the_client_pass_it_on_and_others_are_a_bad_gateway() {
        for status in OF_CLIENTS {
            assert_eq!(status_without_quorum(&[Some(status), Some(status)]), status);
        }
        for failures in [
            &[][..],
            &[None],
            &[Some(413), Some(401)],
            &[Some(413), None],
            &[Some(413), Some(500)],
            &[Some(403), Some(403)],
            &[Some(500), Some(500)],
        ] {
            assert_eq!(status_without_quorum(failures), 502, "{failures:?}");
        }
    }
}
