//! `quipu tokens` as a user types it, against a running instance.

use serde_json::json;

use super::kit::http;
use crate::support::instance::Instance;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_token_is_made_on_the_database_listed_used_and_revoked() {
    let instance = Instance::start(&["--set", "services.jobs.compat_unauthenticated=false"]);
    let address = instance.ready["services"]["jobs"].as_str().unwrap().parse().unwrap();
    let created = instance.run(&["tokens", "create", "--admin", "--name", "root", "--json"]).ok();
    let created = created.json_lines().remove(0);
    let token = created["token"].as_str().unwrap();
    assert!(token.starts_with("bf_") && token.len() == 46, "{token}");
    let reader = instance.run(&["tokens", "create", "--name", "reader", "--scope", "read"]).ok();
    assert!(reader.stdout.starts_with("bf_") && reader.stderr.contains("reader"), "{}", reader.stderr);
    let listed = instance.run(&["tokens", "list", "--json"]).ok().json_lines();
    let names: Vec<_> = listed.iter().map(|token| token["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["root", "reader"]);
    assert_eq!(listed[1]["scopes"], json!(["read"]));
    let table = instance.run(&["tokens", "list"]).ok().stdout;
    assert!(table.contains("root") && !table.contains("bf_"), "{table}");

    let authorization = format!("Bearer {token}");
    let status =
        async || http(address, "GET", "/api/tokens", &[("authorization", &authorization)], None).await.0;
    assert_eq!(status().await, 200);
    let id = created["id"].to_string();
    assert!(instance.run(&["tokens", "revoke", &id]).ok().stdout.contains("revoked"));
    assert!(instance.run(&["tokens", "revoke", "1"]).refusal().contains("there is no token 1"));
    // A process believes what it has checked for five seconds.
    crate::support::proxy::eventually("the token is refused", async || status().await == 401).await;
    let wrong = instance.run(&["tokens", "create", "--name", "x", "--scope", "everything"]).stderr;
    assert!(wrong.contains("read, submit, manage, work"), "{wrong}");
}
