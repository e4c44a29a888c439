//! `/admin/tokens`: API tokens, for administrators.

use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::parts::{NAME_SHOWN, foreign, visible, when};
use super::refused::refused_page;
use super::visitor::{Administrator, Visitor};
use crate::services::jobs::decide::{NAME_BYTES_MAX, Scope, TOKEN_DAYS_MAX};
use crate::services::jobs::edge::JobsState;
use crate::services::jobs::edge::credentials::TokenFields;
use crate::services::jobs::edge::refusal::Refused;
use crate::services::jobs::read::{self, StoredToken};

/// Tokens that the page shows.
const TOKENS_SHOWN: usize = 500;

/// The path of the page.
const PATH: &str = "/admin/tokens";

/// The fields of a new token. A box that is not checked is not sent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TokenForm {
    name: String,
    /// Days; empty for never.
    expires_in: String,
    is_admin: String,
    read: String,
    submit: String,
    work: String,
    manage: String,
}

impl TokenForm {
    fn fields(self) -> Result<TokenFields, Refused> {
        let boxes = [
            (Scope::Read, &self.read),
            (Scope::Submit, &self.submit),
            (Scope::Work, &self.work),
            (Scope::Manage, &self.manage),
        ];
        let checked = boxes.iter().filter(|(_, sent)| !sent.is_empty());
        let scopes: Vec<String> = checked.map(|(scope, _)| scope.as_str().to_owned()).collect();
        let is_admin = !self.is_admin.is_empty();
        // Without scopes a token has all of them, which an empty form does not say.
        if scopes.is_empty() && !is_admin {
            return Err(Refused::field("scopes", "have to be chosen: at least one"));
        }
        let days = match self.expires_in.trim() {
            "" => 0,
            text => text.parse().map_err(|_| Refused::field("expires_in", "is not a number of days"))?,
        };
        Ok(TokenFields { name: self.name.trim().to_owned(), is_admin, scopes, days })
    }
}

pub(super) async fn page(Administrator(visitor): Administrator, State(state): State<JobsState>) -> Response {
    shown(&state, &visitor, None).await
}

pub(super) async fn create(
    Administrator(visitor): Administrator,
    State(state): State<JobsState>,
    Form(form): Form<TokenForm>,
) -> Response {
    let created = async {
        let fields = form.fields()?;
        Ok((fields.name.clone(), state.new_token(&visitor.client, fields).await?.1))
    };
    match created.await {
        Ok((name, token)) => shown(&state, &visitor, Some((&name, &token))).await,
        Err(refused) => refused_page(&state, &visitor.context, refused),
    }
}

pub(super) async fn revoke(
    Administrator(visitor): Administrator,
    State(state): State<JobsState>,
    Path(id): Path<String>,
) -> Response {
    match state.revoke_token(&visitor.client, &id).await {
        Ok(()) => Redirect::to(PATH).into_response(),
        Err(refused) => refused_page(&state, &visitor.context, refused),
    }
}

/// The page; with the name and the text of a token that was just created.
async fn shown(state: &JobsState, visitor: &Visitor, new: Option<(&str, &str)>) -> Response {
    match read::tokens(&state.parts().pools.session).await {
        Ok(tokens) => {
            let main = main(&tokens, state.parts().clock.now(), new);
            super::answer(visitor, PATH, "tokens", false, main)
        }
        Err(error) => refused_page(state, &visitor.context, error.into()),
    }
}

fn main(tokens: &[StoredToken], now: DateTime<Utc>, new: Option<(&str, &str)>) -> Markup {
    html! {
        @if let Some((name, token)) = new {
            section.created role="status" {
                h2 { "The token " (foreign(name, NAME_SHOWN)) }
                p { "Copy it now. It is not stored and cannot be shown again." }
                pre #new-token { (token) }
            }
        }
        div.tokens-page {
            section aria-labelledby="tokens-title" {
                h2 #tokens-title { "Tokens" }
                @if tokens.is_empty() {
                    p.empty { "There is no token. Programs on this machine need none; create one for each other client." }
                } @else {
                    table {
                        thead { tr { th { "token" } th.roomy { "created" } th.number { "expires" } th.number { span.unseen { "revoke" } } } }
                        tbody { @for token in tokens.iter().take(TOKENS_SHOWN) { (row(token, now)) } }
                    }
                    @if tokens.len() > TOKENS_SHOWN { p.aside { a href="/api/tokens" { "All tokens" } } }
                }
            }
            (form())
        }
    }
}

fn rights(token: &StoredToken) -> String {
    if token.is_admin {
        "administrator".to_owned()
    } else if token.scopes.is_empty() {
        "read, submit, work, manage".to_owned()
    } else {
        token.scopes.join(", ")
    }
}

fn row(token: &StoredToken, now: DateTime<Utc>) -> Markup {
    html! {
        tr {
            td.name {
                b { (foreign(&token.name, NAME_SHOWN)) }
                span.source { (foreign(&rights(token), NAME_SHOWN)) }
            }
            td.roomy { (when(now, token.created_at)) }
            td.number { @if let Some(at) = token.expires_at { (when(now, at)) } @else { "never" } }
            td.number {
                form action={ "/actions/tokens/" (token.id) "/revoke" } method="post" {
                    button.danger type="submit" aria-label={ "Revoke " (visible(&token.name, NAME_SHOWN)) } { "Revoke" }
                }
            }
        }
    }
}

fn form() -> Markup {
    let scopes = [
        ("read", "see jobs, their history, workers and totals"),
        ("submit", "submit jobs"),
        ("work", "claim, complete and fail jobs as any worker"),
        ("manage", "retry, cancel and reprioritize jobs; drain workers; set schedules"),
    ];
    html! {
        section.actions aria-labelledby="new-title" {
            h2 #new-title { "New token" }
            form action="/actions/tokens" method="post" {
                label { span { "name" } input type="text" name="name" maxlength=(NAME_BYTES_MAX) required autocomplete="off"; }
                fieldset {
                    legend { "may" }
                    @for (scope, meaning) in scopes {
                        label.check { input type="checkbox" name=(scope) value="1" checked[scope == "read"]; " " b { (scope) } " " span.aside { (meaning) } }
                    }
                    label.check { input type="checkbox" name="is_admin" value="1"; " " b { "administrator" } " " span.aside { "everything, tokens as well" } }
                }
                label { span { "expires after" } input type="number" name="expires_in" min="1" max=(TOKEN_DAYS_MAX) placeholder="never"; span.aside { "days" } }
                button type="submit" { "Create" }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_token_says_what_it_may() {
        let form =
            TokenForm { name: " ci ".into(), read: "1".into(), work: "1".into(), ..TokenForm::default() };
        let fields = form.fields().unwrap();
        assert_eq!((fields.name.as_str(), fields.days, fields.is_admin), ("ci", 0, false));
        assert_eq!(fields.scopes, ["read", "work"]);
        let form = TokenForm { name: "x".into(), ..TokenForm::default() };
        assert!(form.fields().is_err(), "no scope would mean all of them");
        let form = TokenForm { is_admin: "1".into(), expires_in: "x".into(), ..TokenForm::default() };
        assert!(form.fields().is_err());
    }

    #[test]
    fn names_are_escaped_and_a_token_is_shown_where_it_was_created_alone() {
        let at = DateTime::from_timestamp(0, 0).unwrap();
        let stored = StoredToken {
            id: 3,
            name: "<script>\u{202e}".to_owned(),
            is_admin: false,
            scopes: Vec::new(),
            expires_at: None,
            created_at: at,
        };
        let with = main(std::slice::from_ref(&stored), at, Some(("<b>", "bf_x"))).into_string();
        assert!(with.contains("bf_x") && with.contains("&lt;b&gt;"), "{with}");
        let without = main(&[stored], at, None).into_string();
        assert!(!without.contains("bf_") && !without.contains("<script>"), "{without}");
        assert!(without.contains("/actions/tokens/3/revoke"), "{without}");
    }
}
