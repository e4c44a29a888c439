//! A real S3 server in the test's process, which checks signatures, times, headers and checksums.

use std::net::SocketAddr;
use std::path::Path;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The keys that it accepts.
pub(crate) const ACCESS_KEY: &str = "accesskey";
pub(crate) const SECRET_KEY: &str = "hunter2";

/// Serves the folder at a port of this machine; each folder in it is a bucket.
pub(crate) async fn serve(root: &Path) -> (SocketAddr, JoinSet<()>) {
    let mut builder = S3ServiceBuilder::new(FileSystem::new(root).unwrap());
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let service = builder.build();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        // Dropped with the server, and with it all connections.
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            // A client that leaves is no error of the server.
            connections.spawn(async move {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, server)
}
