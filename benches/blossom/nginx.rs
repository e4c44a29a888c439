//! The reference for downloads: nginx, which redirects, answers 404, and serves files.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Polls until it listens.
const POLLS_MAX: usize = 500;

/// A running nginx. Dropping it stops it.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl Nginx {
    /// Starts one with two workers, as many as Quipu has on a machine with two cores.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("quipu-nginx-").tempdir().expect("a temporary folder");
        // Its workers are another user when it is started by root.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("a writable folder");
        let files = folder.path().join("files");
        fs::create_dir(&files).expect("a writable folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = port.expect("a free port");
        let configuration = folder.path().join("nginx.conf");
        fs::write(&configuration, configured(folder.path(), &files, address)).expect("a writable folder");
        let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        let child = Command::new(program)
            .arg("-c")
            .arg(&configuration)
            .arg("-p")
            .arg(folder.path())
            .args(["-g", "daemon off;"])
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed: `scripts/deps bench` installs it");
        let nginx = Self { address, child, folder };
        for _ in 0..POLLS_MAX {
            if TcpStream::connect(address).await.is_ok() {
                return nginx;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("nginx does not listen");
    }

    /// Serves a file under this name.
    pub(crate) fn serve(&self, name: &str, content: &[u8]) {
        fs::write(self.folder.path().join("files").join(name), content).expect("a writable folder");
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its first process ends the workers at SIGTERM.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

fn configured(folder: &Path, files: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    let files = files.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
        .concat();
    format!(
        "worker_processes 2;\npid {folder}/nginx.pid;\nerror_log /dev/null;\nevents {{ worker_connections 1024; }}\n\
         http {{\n{temporary}  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  keepalive_requests 1000000000;\n  \
         default_type application/octet-stream;\n  open_file_cache max=100;\n  server {{\n    listen {address};\n    \
         location = /redirect {{ return 302 http://127.0.0.1:1/somewhere; }}\n    location = /absent {{ return 404; }}\n    \
         location / {{ root {files}; }}\n  }}\n}}\n"
    )
}
