//! Pages of the list of a key (BUD-12): newest first, equal times in the order of the hashes.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::base::Sha256;
use crate::services::blossom::event::OwnedBlob;

/// Entries of a page without `limit`, and at most: as many as clients ask for at a time, because a page that is shorter than
/// `limit` ends their listing.
pub const PAGE_DEFAULT: usize = 100;
/// See [`PAGE_DEFAULT`].
pub const PAGE_MAX: usize = 1_000;

/// The query of a list, as text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<'a> {
    /// `limit`.
    pub limit: Option<&'a str>,
    /// `cursor`: the hash of the last entry of the page before.
    pub cursor: Option<&'a str>,
    /// `since`, Unix seconds.
    pub since: Option<&'a str>,
    /// `until`, Unix seconds.
    pub until: Option<&'a str>,
}

/// A page that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Most entries.
    pub limit: usize,
    /// The last entry of the page before.
    pub cursor: Option<Sha256>,
    /// Only entries of this time and later.
    pub since: Option<i64>,
    /// Only entries of this time and earlier.
    pub until: Option<i64>,
}

/// A field of the query is out of its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}")]
pub struct BadQuery {
    /// The field.
    pub field: &'static str,
    /// What it has to be.
    pub expected: &'static str,
}

impl Page {
    /// Reads a query.
    ///
    /// # Errors
    /// When a field is not what it has to be.
    pub fn parse(query: Query<'_>) -> Result<Self, BadQuery> {
        let limit = match query.limit {
            None => PAGE_DEFAULT,
            Some(digits) => {
                let bad = BadQuery { field: "limit", expected: "a number of at least 1" };
                let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
                if !is_number || digits.bytes().all(|digit| digit == b'0') {
                    return Err(bad);
                }
                digits.parse().unwrap_or(PAGE_MAX).min(PAGE_MAX)
            }
        };
        let cursor = query.cursor.map(str::parse::<Sha256>).transpose();
        let cursor = cursor
            .map_err(|_| BadQuery { field: "cursor", expected: "the SHA-256 of the last blob of a page" })?;
        let time = |field, digits: Option<&str>| {
            let time = digits.map(str::parse::<i64>).transpose();
            time.map_err(|_| BadQuery { field, expected: "Unix seconds" })
        };
        let (since, until) = (time("since", query.since)?, time("until", query.until)?);
        Ok(Self { limit, cursor, since, until })
    }

    /// Whether an entry of this time belongs to the list.
    #[must_use]
    pub fn includes(&self, uploaded: i64) -> bool {
        self.since.is_none_or(|since| uploaded >= since) && self.until.is_none_or(|until| uploaded <= until)
    }
}

/// The place of an entry in the list: smaller ones come first.
pub type Place = (Reverse<i64>, Sha256);

/// The place of a blob that was stored at this time.
#[must_use]
pub fn place(uploaded: i64, sha256: Sha256) -> Place {
    (Reverse(uploaded), sha256)
}

/// One page of the lists of several servers: by hash once, with all servers that have it and the oldest time; newest first;
/// what is at or before `after` left out.
#[must_use]
pub fn merge(
    lists: impl IntoIterator<Item = Vec<OwnedBlob>>,
    page: &Page,
    after: Option<Place>,
) -> Vec<OwnedBlob> {
    let mut merged: BTreeMap<Sha256, OwnedBlob> = BTreeMap::new();
    for blob in lists.into_iter().flatten() {
        match merged.get_mut(&blob.facts.sha256) {
            None => {
                merged.insert(blob.facts.sha256, blob);
            }
            Some(known) => {
                known.uploaded = known.uploaded.min(blob.uploaded);
                for upstream in blob.upstreams {
                    if !known.upstreams.contains(&upstream) {
                        known.upstreams.push(upstream);
                    }
                }
            }
        }
    }
    let mut blobs: Vec<OwnedBlob> = merged
        .into_values()
        .filter(|blob| {
            page.includes(blob.uploaded)
                && after.is_none_or(|after| place(blob.uploaded, blob.facts.sha256) > after)
        })
        .collect();
    blobs.sort_by_key(|blob| place(blob.uploaded, blob.facts.sha256));
    blobs.truncate(page.limit);
    blobs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::blossom::event::BlobFacts;

    fn blob(name: u8, uploaded: i64, upstreams: &[&str]) -> OwnedBlob {
        OwnedBlob {
            facts: BlobFacts {
                sha256: Sha256::from_bytes([name; 32]),
                size: 1,
                media_type: "image/png".to_owned(),
            },
            uploaded,
            upstreams: upstreams.iter().map(|&upstream| upstream.to_owned()).collect(),
        }
    }

    fn of(limit: Option<&str>, cursor: Option<&str>) -> Result<Page, BadQuery> {
        Page::parse(Query { limit, cursor, ..Query::default() })
    }

    #[test]
    fn bl_12_06_bad_parameters_are_refused() {
        assert_eq!(of(None, None).unwrap().limit, PAGE_DEFAULT);
        assert_eq!(of(Some("7"), None).unwrap().limit, 7);
        for large in ["1001", "99999999999999999999999"] {
            assert_eq!(of(Some(large), None).unwrap().limit, PAGE_MAX);
        }
        for limit in ["0", "00", "-1", "+1", "", "x", "1.5"] {
            assert_eq!(of(Some(limit), None).unwrap_err().field, "limit", "{limit}");
        }
        let hash = "AB".repeat(32);
        assert_eq!(of(None, Some(&hash)).unwrap().cursor.unwrap().to_string(), hash.to_lowercase());
        for cursor in ["", "abc", &hash[1..], &format!("{hash}0")] {
            assert_eq!(of(None, Some(cursor)).unwrap_err().field, "cursor", "{cursor}");
        }
        let since = Page::parse(Query { since: Some("x"), ..Query::default() });
        assert_eq!(since.unwrap_err().field, "since");
        let until = Page::parse(Query { until: Some(""), ..Query::default() });
        assert_eq!(until.unwrap_err().field, "until");
    }

    #[test]
    fn bl_12_03_newest_first_and_ties_in_the_order_of_hashes_over_all_pages() {
        let all: Vec<_> = (1..=9).map(|name| blob(name, i64::from(name % 3), &["a"])).collect();
        let whole = merge([all.clone()], &of(None, None).unwrap(), None);
        let mut paged = Vec::new();
        let mut after = None;
        loop {
            let page = merge([all.clone()], &of(Some("2"), None).unwrap(), after);
            let Some(last) = page.last() else { break };
            after = Some(place(last.uploaded, last.facts.sha256));
            paged.extend(page);
        }
        assert_eq!(paged, whole);
        assert_eq!(whole.len(), 9);
        assert!(whole.windows(2).all(|two| {
            place(two[0].uploaded, two[0].facts.sha256) < place(two[1].uploaded, two[1].facts.sha256)
        }));
        assert_eq!(whole[0].uploaded, 2);
    }

    #[test]
    fn bl_px_07_lists_are_merged_by_hash_with_all_servers_and_the_oldest_time() {
        let page = of(None, None).unwrap();
        let merged = merge(
            [vec![blob(1, 50, &["a"]), blob(2, 60, &["a"])], vec![blob(1, 40, &["b", "a"])], Vec::new()],
            &page,
            None,
        );
        assert_eq!(merged, [blob(2, 60, &["a"]), blob(1, 40, &["a", "b"])]);
    }

    #[test]
    fn bl_12_05_since_and_until_are_inclusive() {
        let page = Page::parse(Query { since: Some("20"), until: Some("30"), ..Query::default() }).unwrap();
        let list = vec![blob(1, 19, &[]), blob(2, 20, &[]), blob(3, 30, &[]), blob(4, 31, &[])];
        let names: Vec<_> = merge([list], &page, None).iter().map(|blob| blob.uploaded).collect();
        assert_eq!(names, [30, 20]);
    }

    /// BL-12.2
    #[test]
    fn bl_12_02_the_blob_of_the_cursor_is_not_in_the_answer() {
        let list = vec![blob(1, 10, &[]), blob(2, 10, &[]), blob(3, 10, &[])];
        let after = place(10, Sha256::from_bytes([2; 32]));
        let left = merge([list], &of(None, None).unwrap(), Some(after));
        assert_eq!(left, [blob(3, 10, &[])]);
    }
}
