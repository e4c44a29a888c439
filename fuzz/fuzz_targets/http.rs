//! Arbitrary bytes as a request to every listener of a complete instance that runs in this process with its
//! own PostgreSQL: no panic, and each connection ends or is answered.

#![no_main]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use quipu::app::{UpOptions, registry, up};
use quipu::config::{Configuration, Environment, Sources};
use tokio::signal::unix::{SignalKind, signal};

/// The addresses of its listeners. The instance ends with the process; the next run of the target reuses its
/// folder.
static LISTENERS: LazyLock<Vec<SocketAddr>> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join("quipu-fuzz-http");
    let ready = folder.join("ready.json");
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
    let _ = std::fs::remove_file(&ready);
    let options = UpOptions {
        data: folder.join("data"),
        port_base: Some(17_700),
        ready_file: Some(ready.clone()),
        sample: false,
    };
    let off = ["initializer", "finder", "validator", "monitor", "synchronizer", "priority_synchronizer"];
    let sources = Sources {
        implementation: "bigbrotr".to_owned(),
        environment: Environment::default(),
        working_dir: folder,
        settings_file: None,
        overrides: off.iter().map(|service| format!("services.{service}.enabled=false")).collect(),
    };
    let configuration = Configuration::load(sources).expect("the bundled settings are good");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads can be started");
        let ended = runtime.block_on(async {
            // Rust's own `main`, which ignores SIGPIPE, does not run here: a closed connection would end the process.
            let _pipe = signal(SignalKind::pipe()).expect("the signal can be handled");
            up(configuration, &options).await
        });
        panic!("the instance ended: {ended:?}");
    });
    listeners(&ready)
});

fn listeners(ready: &Path) -> Vec<SocketAddr> {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        if let Ok(text) = std::fs::read_to_string(ready) {
            let said: serde_json::Value = serde_json::from_str(&text).expect("it is written whole");
            let services = said["services"].as_object().expect("it names the listeners");
            for listener in registry::listeners() {
                assert!(services.contains_key(listener.name()), "{} does not listen", listener.name());
            }
            let address = |text: &serde_json::Value| text.as_str().and_then(|text| text.parse().ok());
            return services.values().map(|text| address(text).expect("an address")).collect();
        }
        assert!(Instant::now() < end, "the instance does not start");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

fuzz_target!(|bytes: &[u8]| {
    for address in &*LISTENERS {
        let Ok(mut stream) = TcpStream::connect(address) else { panic!("{address} accepts no connection") };
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("the time is not zero");
        // `\xff` in the input becomes CRLF, which random input contains too rarely.
        let request: Vec<u8> = bytes
            .iter()
            .flat_map(|byte| if *byte == 0xff { b"\r\n".to_vec() } else { vec![*byte] })
            .collect();
        if stream.write_all(&request).is_err() || stream.shutdown(Shutdown::Write).is_err() {
            continue;
        }
        let mut answer = [0; 4_096];
        while stream.read(&mut answer).is_ok_and(|read| read > 0) {}
    }
});
