//! `quipu health`: exit code and message for each kind of answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use crate::support::database::enterable_folder;
use crate::support::instance::{Ran, quipu, run};

/// Answers one request with these bytes, and returns its first line.
fn listener(answer: &'static str) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        connection.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap().lines().next().unwrap().to_owned()
    });
    (address, answering)
}

fn health(arguments: &[&str]) -> Ran {
    let folder = enterable_folder();
    run(quipu(folder.path()).arg("health").args(arguments), folder.path())
}

#[test]
fn health_succeeds_on_2xx_and_says_why_it_fails_otherwise() {
    let (address, answering) = listener("HTTP/1.1 204 No Content\r\n\r\n");
    let url = format!("http://{address}/healthz");
    assert_eq!(health(&[&url]).ok().stdout, format!("{url}: status 204\n"));
    assert_eq!(answering.join().unwrap(), "GET /healthz HTTP/1.1");

    let (address, answering) =
        listener("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\n\r\nthe\ndisk\x07 is");
    let url = format!("http://{address}/readyz");
    assert_eq!(health(&[&url]).refusal(), format!("quipu: {url}: status 503: the disk  is\n"));
    answering.join().unwrap();

    // A redirect is not followed.
    let (address, answering) =
        listener("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
    let url = format!("http://{address}/");
    let told = health(&[&url]).refusal();
    assert!(told.contains(&url), "{told}");
    answering.join().unwrap();
}

#[test]
fn health_fails_in_time_where_nothing_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/healthz", silent.local_addr().unwrap());
    let told = health(&[&url, "--timeout", "1"]).refusal();
    assert!(told.contains(&url) && told.contains("1s"), "{told}");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}/healthz");
    let told = health(&[&url]).refusal();
    assert!(told.contains(&url) && told.contains("refused"), "{told}");

    let told = health(&["127.0.0.1:4701/healthz"]).refusal();
    assert!(told.contains("127.0.0.1:4701/healthz"), "{told}");
}
