//! What the command of a job can read of `quipu worker`.

use std::process::Command;

use nix::unistd::geteuid;
use serde_json::json;

use super::kit::Room;
use crate::support::database::TestDatabase;
use crate::support::instance::{quipu, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_cannot_read_the_environment_of_its_worker() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let job = room.ok("/api/jobs", &json!({ "type": "pdf", "unique": false })).await["job_id"].clone();
    let folder = tempfile::tempdir().unwrap();
    let mut command = quipu(folder.path());
    if geteuid().is_root() {
        // Root may read every process, by any of these capabilities.
        let mut without = Command::new("setpriv");
        without.args(["--bounding-set=-sys_ptrace,-perfmon,-sys_admin", "--"]).arg(command.get_program());
        without.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command = without;
    }
    let exec = r#"sh -c 'can() { cat "/proc/$1/environ" > /dev/null 2>&1 && echo true || echo false; }; echo "{\"own\": $(can $$), \"worker\": $(can $PPID)}" > "$QUIPU_JOB_OUTPUT"'"#;
    command.args(["worker", "--type", "pdf", "--until-idle", "--exec", exec, "--folder"]).arg(folder.path());
    command.args(["--server", &format!("http://{}", room.address)]);
    let ran = tokio::task::block_in_place(|| run(&mut command, folder.path())).ok();
    let done = room.get(&format!("/api/jobs/{job}")).await.1;
    assert_eq!(done["result"], json!({ "own": true, "worker": false }), "{done} {}", ran.stderr);
}
