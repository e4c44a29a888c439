//! Races that the random runs seldom hit.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::simple_client::SimpleClient;

/// Process B commits a message but gets the answer late. The device receives the message from process A,
/// acknowledges it there, and connects to B, which only then learns that its commit succeeded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_learns_late_of_its_commit_does_not_push_a_message_acknowledged_elsewhere() {
    let cluster = Cluster::start().await;
    let [a, b] = [0, 1].map(|process| cluster.address(process).unwrap());
    let [sender, recipient] = ["11", "22"].map(|byte| byte.repeat(32));
    let mut phone = SimpleClient::hello(a, &recipient, "phone").await;
    let mut sending = SimpleClient::hello(b, &sender, "desk").await;
    let resume = CancellationToken::new();
    cluster.hold_commit_answer(1, resume.clone());
    sending.send(json!({ "type": "send", "to": recipient, "payload_b64": "Zmlyc3Q" })).await;
    // Process A finds the message by polling the database.
    let first = phone.next_frame().await;
    assert_eq!(first["payload_b64"], "Zmlyc3Q");
    phone.send(json!({ "type": "ack", "msg_id": first["msg_id"] })).await;
    assert_eq!(phone.next_frame().await["type"], "ack_ok");
    drop(phone);
    let mut phone = SimpleClient::hello(b, &recipient, "phone").await;
    // The device has read all waiting messages.
    phone.send(json!({ "type": "pull" })).await;
    assert_eq!(phone.next_frame().await["messages"], json!([]));
    resume.cancel();
    assert_eq!(sending.next_frame().await["type"], "send_ok");
    sending.send(json!({ "type": "send", "to": recipient, "payload_b64": "c2Vjb25k" })).await;
    assert_eq!(sending.next_frame().await["type"], "send_ok");
    assert_eq!(phone.next_frame().await["payload_b64"], "c2Vjb25k", "only the new message comes");
    drop((phone, sending));
    cluster.stop();
}
