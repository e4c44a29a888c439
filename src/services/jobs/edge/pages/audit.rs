//! `/admin/audit`: who did what, for administrators.

use axum::extract::{Query, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::parts::{NAME_SHOWN, foreign, when};
use super::refused::refused_page;
use super::visitor::Administrator;
use crate::http::page::spaced;
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::read::{self, AuditEntry};

/// The path of the page.
const PATH: &str = "/admin/audit";

/// Entries of a page.
const SHOWN: usize = 50;

/// The query of the page: entries with a lower position. An empty field is none.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AuditQuery {
    before: String,
}

impl AuditQuery {
    fn before(&self) -> Result<Option<i64>, Refused> {
        if self.before.is_empty() {
            return Ok(None);
        }
        let before = self.before.parse();
        before.map(Some).map_err(|_| Refused::field("before", "is not the position of an entry"))
    }
}

pub(super) async fn page(
    Administrator(visitor): Administrator,
    State(state): State<JobsState>,
    Query(query): Query<AuditQuery>,
) -> Response {
    let read = async {
        let before = query.before()?;
        // One more, to know whether there are older ones.
        let most = i64::try_from(SHOWN + 1).unwrap_or(i64::MAX);
        let entries = read::audit(&state.parts().pools.session, before, most).await?;
        Ok::<_, Refused>((before, entries))
    };
    match read.await {
        Ok((before, entries)) => {
            let main = main(&entries, before.is_some(), state.parts().clock.now());
            super::answer(&visitor, PATH, "audit", false, main)
        }
        Err(refused) => refused_page(&state, &visitor.context, refused),
    }
}

fn main(entries: &[AuditEntry], is_later_page: bool, now: DateTime<Utc>) -> Markup {
    let shown = entries.get(..SHOWN).unwrap_or(entries);
    let older = shown.last().filter(|_| entries.len() > SHOWN).map(|last| last.position);
    html! {
        section.list aria-labelledby="audit-title" {
            h2 #audit-title { "Audit" small { "newest first" } }
            @if shown.is_empty() {
                p.empty { @if is_later_page { "There is no older entry. " } @else { "Nothing was done yet apart from submitting and working." } }
            } @else {
                table {
                    thead { tr { th { "what" } th { "who" } th.number { "when" } } }
                    tbody { @for entry in shown { (row(entry, now)) } }
                }
            }
            @if is_later_page || older.is_some() {
                nav.paging aria-label="Pages of the list" {
                    @if is_later_page { a href=(PATH) { "Newest" } }
                    @if let Some(older) = older { a rel="next" href={ (PATH) "?before=" (older) } { "Older" } }
                }
            }
        }
    }
}

fn row(entry: &AuditEntry, now: DateTime<Utc>) -> Markup {
    let detail = detail(&entry.detail);
    html! {
        tr {
            td.name {
                b { (spaced(&entry.action)) } " "
                @if entry.action.starts_with("job_") {
                    a href={ "/jobs/" (entry.subject) } { "#" (entry.subject) }
                } @else { (foreign(&entry.subject, NAME_SHOWN)) }
                @if !detail.is_empty() { span.source { (foreign(&detail, NAME_SHOWN)) } }
            }
            td.who { (foreign(&entry.actor, NAME_SHOWN)) }
            td.number { (when(now, entry.recorded_at)) }
        }
    }
}

/// The members of a detail in one line.
fn detail(detail: &Value) -> String {
    let Value::Object(members) = detail else { return String::new() };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let said = members.iter().filter(|(_, value)| !value.is_null() && **value != Value::Array(Vec::new()));
    said.map(|(name, value)| format!("{}: {}", spaced(name), text(value))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_is_shown_as_text_and_leads_to_its_job() {
        let at = DateTime::from_timestamp(0, 0).unwrap();
        let entry = |action: &str, subject: &str, detail| AuditEntry {
            position: 7,
            recorded_at: at,
            actor: "token:<b>".to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            detail,
        };
        let entries = [
            entry("job_cancelled", "12", json!({ "was": "pending", "why": "<i>" })),
            entry("token_created", "<script>\u{202e}", json!({ "is_admin": false, "scopes": [] })),
        ];
        let shown = main(&entries, false, at).into_string();
        assert!(shown.contains("<b>job cancelled</b> <a href=\"/jobs/12\">#12</a>"), "{shown}");
        assert!(
            shown.contains("was: pending, why: &lt;i&gt;") && shown.contains("is admin: false<"),
            "{shown}"
        );
        assert!(shown.contains("&lt;script&gt;⟨U+202E⟩") && !shown.contains("<script>"), "{shown}");
        assert!(!shown.contains("Older"));
    }

    #[test]
    fn a_full_page_leads_to_older_entries() {
        let at = DateTime::from_timestamp(0, 0).unwrap();
        let entries: Vec<AuditEntry> = (0..=50)
            .map(|place| AuditEntry {
                position: 100 - place,
                recorded_at: at,
                actor: String::new(),
                action: "worker_removed".to_owned(),
                subject: "w".to_owned(),
                detail: Value::Null,
            })
            .collect();
        let shown = main(&entries, false, at).into_string();
        assert!(shown.contains("href=\"/admin/audit?before=51\">Older</a>"), "{shown}");
        assert_eq!(shown.matches("<tr>").count(), 51, "a head and fifty entries");
        assert!(AuditQuery { before: "x".to_owned() }.before().is_err());
    }
}
