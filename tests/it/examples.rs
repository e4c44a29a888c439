//! Every shell and Python example of the documents runs against a running instance with sample events.
//!
//! An example that cannot run says why in its info string: `sh no-run: needs docker`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use quipu::app::Ports;
use quipu::room::Port;
use tempfile::TempDir;

use crate::support::instance::{Instance, Ran, run};

/// Seconds that one example may take.
const EXAMPLE_S_MAX: &str = "60";

/// Languages of blocks that are not run here. Blocks in `sql` are run by `store::documented`.
const OTHER_LANGUAGES: [&str; 10] =
    ["text", "sql", "ini", "json", "yaml", "toml", "promql", "html", "css", "javascript"];

/// The program that runs the examples of a language; their working directory is the current one.
fn interpreter(language: &str) -> Option<&'static [&'static str]> {
    match language {
        "sh" | "bash" | "console" => Some(&["bash", "-eu"]),
        // Without packages of this machine or of its user: an example needs the standard library alone.
        "python" => Some(&["python3", "-I", "-S"]),
        _ => None,
    }
}

/// An example that can run.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    /// The document and the line of its first fence.
    place: String,
    language: String,
    text: String,
}

/// The examples of a document that can run, and what is wrong with its blocks.
fn examples(document: &str, text: &str) -> (Vec<Example>, Vec<String>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let block: Vec<&str> =
            lines.by_ref().map(|(line, _)| line).take_while(|line| line.trim() != "```").collect();
        let place = format!("{document}:{number}");
        let (language, marker) = info.split_once(' ').unwrap_or((info, ""));
        if interpreter(language).is_none() {
            if !OTHER_LANGUAGES.contains(&language) {
                problems.push(format!("{place}: the language `{language}` is not known here"));
            }
        } else if marker.is_empty() {
            let text = commands(language, &block);
            problems.extend(outside(&text).map(|host| format!("{place}: dials {host}")));
            found.push(Example { place, language: language.to_owned(), text });
        } else if marker.strip_prefix("no-run:").is_none_or(|reason| reason.trim().len() < 10) {
            problems.push(format!("{place}: `{marker}`: expected `no-run: ` and the reason"));
        }
    }
    (found, problems)
}

/// What is to be run: in `console` blocks only what is behind a prompt.
fn commands(language: &str, block: &[&str]) -> String {
    let typed = |line: &&str| match language {
        "console" => line.strip_prefix("$ ").map(|command| format!("{command}\n")),
        _ => Some(format!("{line}\n")),
    };
    block.iter().filter_map(typed).collect()
}

/// The hosts of URLs in a text that are neither on loopback nor reserved for examples (RFC 2606). Reserved ones
/// are only entered as relays, which an instance with `--sample` does not dial.
fn outside(text: &str) -> impl Iterator<Item = &str> {
    let hosts = text.split("://").skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || ".-".contains(c)));
        end.map_or(rest, |end| &rest[..end])
    });
    hosts.filter(|host| {
        !host.starts_with("127.")
            && !["localhost", "example.com"].contains(host)
            && !host.ends_with(".example.com")
    })
}

/// README and every document below docs/, with their texts.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (vec![root.join("README.md")], vec![root.join("docs")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let name = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// A folder in which the examples find what a reader has: the program, the data folder of the running
/// instance, and a file of events.
fn folder(instance: &Instance, events: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("target/debug")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_quipu"), path("target/debug/quipu")).unwrap();
    std::os::unix::fs::symlink(instance.data(), path("data")).unwrap();
    fs::copy(events, path("events.jsonl")).unwrap();
    // An answer that refuses the request ends the example.
    fs::write(path(".curlrc"), "fail-with-body\nshow-error\n").unwrap();
    folder
}

/// Runs an example in a folder of its own.
fn try_out(example: &Example, instance: &Instance, events: &Path) -> Ran {
    let folder = folder(instance, events);
    let ports = Ports { base: instance.port_base };
    let at = |ports: Ports, port: Port| format!("127.0.0.1:{}", ports.of(port));
    let text = Port::ALL
        .iter()
        .fold(example.text.clone(), |text, port| text.replace(&at(Ports::DEFAULT, *port), &at(ports, *port)));
    fs::write(folder.path().join("example"), text).unwrap();
    let own = Path::new(env!("CARGO_BIN_EXE_quipu")).parent().unwrap();
    let path = format!("{}:{}", own.display(), std::env::var_os("PATH").unwrap_or_default().display());
    // `timeout` also ends what the example has started.
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", EXAMPLE_S_MAX]);
    command.args(interpreter(&example.language).unwrap()).arg("example");
    command.env_clear().current_dir(folder.path()).stdin(Stdio::null());
    command.env("PATH", path).env("HOME", folder.path());
    // A request that leaves loopback fails: nothing listens there.
    for proxy in ["http_proxy", "https_proxy", "ALL_PROXY"] {
        command.env(proxy, "http://127.0.0.1:1");
    }
    command.env("no_proxy", "127.0.0.1,localhost");
    run(&mut command, folder.path())
}

#[test]
fn every_example_in_the_documents_runs() {
    let (mut all, mut problems) = (Vec::new(), Vec::new());
    for (document, text) in documents() {
        let (found, wrong) = examples(&document, &text);
        all.extend(found);
        problems.extend(wrong);
    }
    assert_eq!(problems, Vec::<String>::new());
    let count = |language: &str| all.iter().filter(|example| example.language == language).count();
    assert!(count("sh") >= 8 && count("python") >= 1, "{all:#?}");

    let instance = Instance::start(&["--sample"]);
    let sample = instance.run(&["sample", "--count", "50", "--seed", "3"]).ok();
    let events = instance.folder().join("events.jsonl");
    fs::write(&events, sample.stdout).unwrap();
    for example in &all {
        let ran = try_out(example, &instance, &events);
        if !ran.status.success() {
            let Ran { status, stdout, stderr } = ran;
            problems.push(format!("{}: {status}\n{}{stdout}{stderr}", example.place, example.text));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    instance.stop();
}

#[test]
fn blocks_that_are_neither_run_nor_excused_are_noticed() {
    let text = "\
        ```sh\necho 1\n```\n```sh no-run: needs docker and a network\ndocker\n```\n\
        ```console\n$ echo 2\n2\n```\n```text\nquipu\n```\n\
        ```sh no-run:\na\n```\n```sh later\nb\n```\n```shell\nc\n```\n\
        ```python\nurlopen('https://relay.example.org/x')\nopen('http://127.0.0.1:4700/')\n```\n";
    let (found, problems) = examples("a.md", text);
    let example = |line: usize, language: &str, text: &str| Example {
        place: format!("a.md:{line}"),
        language: language.to_owned(),
        text: text.to_owned(),
    };
    let python = "urlopen('https://relay.example.org/x')\nopen('http://127.0.0.1:4700/')\n";
    assert_eq!(
        found,
        [example(1, "sh", "echo 1\n"), example(7, "console", "echo 2\n"), example(23, "python", python)]
    );
    assert_eq!(
        problems,
        [
            "a.md:14: `no-run:`: expected `no-run: ` and the reason",
            "a.md:17: `later`: expected `no-run: ` and the reason",
            "a.md:20: the language `shell` is not known here",
            "a.md:23: dials relay.example.org",
        ]
    );
}
