//! Moments that chance seldom finds.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::stage::Stage;
use super::talk::Talk;

/// Process B commits a message and is not told so for a while; the device gets it from process A, acknowledges it there, and
/// comes over to B, which only then learns that its commit succeeded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_elsewhere_does_not_come_from_a_process_that_hears_late_of_its_own_commit() {
    let stage = Stage::start().await;
    let [a, b] = [0, 1].map(|process| stage.address(process).unwrap());
    let [sender, recipient] = ["11", "22"].map(|byte| byte.repeat(32));
    let mut phone = Talk::hello(a, &recipient, "phone").await;
    let mut sending = Talk::hello(b, &sender, "desk").await;
    let told = CancellationToken::new();
    stage.hold_answer(1, told.clone());
    sending.say(json!({ "type": "send", "to": recipient, "payload_b64": "Zmlyc3Q" })).await;
    // A looks at the database.
    let first = phone.hear().await;
    assert_eq!(first["payload_b64"], "Zmlyc3Q");
    phone.say(json!({ "type": "ack", "msg_id": first["msg_id"] })).await;
    assert_eq!(phone.hear().await["type"], "ack_ok");
    drop(phone);
    let mut phone = Talk::hello(b, &recipient, "phone").await;
    // The device has read what there is.
    phone.say(json!({ "type": "pull" })).await;
    assert_eq!(phone.hear().await["messages"], json!([]));
    told.cancel();
    assert_eq!(sending.hear().await["type"], "send_ok");
    sending.say(json!({ "type": "send", "to": recipient, "payload_b64": "c2Vjb25k" })).await;
    assert_eq!(sending.hear().await["type"], "send_ok");
    assert_eq!(phone.hear().await["payload_b64"], "c2Vjb25k", "only what is new comes");
    drop((phone, sending));
    stage.stop();
}
