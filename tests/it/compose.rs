//! Static checks of the container files: images are pinned, ports stay on loopback, every mounted or copied
//! file exists, nothing runs as root or writes to its root, everything has limits and a health check, only
//! crawling services are on the network that leads outside, and secrets are files. Prometheus' own tool checks
//! its file. `make compose-test` runs the file for real.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use quipu::config::{Configuration, Sources};
use quipu::room::ServiceName;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// Every string in a value, with the keys that lead to it.
fn strings(value: &Value, at: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => found.push((at.to_owned(), text.clone())),
        Value::Array(values) => values.iter().for_each(|value| strings(value, at, found)),
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| strings(value, &format!("{at}.{key}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn list<'a>(service: &'a Value, key: &str) -> Vec<&'a str> {
    service[key]
        .as_array()
        .into_iter()
        .flatten()
        .map(|value| value.as_str().unwrap_or("not a string"))
        .collect()
}

/// `postgres:17.6-alpine` names a version; `postgres`, `postgres:latest` and `postgres:alpine` do not.
fn is_pinned(image: &str) -> bool {
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    tag.is_some_and(|tag| tag.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()))
}

/// The images that this repository builds, by the stage of the Dockerfile.
const OWN: [(&str, &str); 3] =
    [("quipu:local", "quipu"), ("quipu-pgbouncer:local", "pgbouncer"), ("quipu-tor:local", "tor")];

/// What may dial the world: services that dial relays, web servers and upstreams of blobs, and Tor, through which they do.
const CRAWLERS: [&str; 7] = ["finder", "validator", "monitor", "synchronizer", "blossom", "quipu", "tor"];

/// Variables of the compose file that change what is mounted, with every value that a shipped file gives them.
const CHOICES: [(&str, &[&str]); 4] = [
    ("${QUIPU_IMPLEMENTATION:-bigbrotr}", &["bigbrotr", "lilbrotr"]),
    ("${QUIPU_ALERTMANAGER:-alertmanager.yml}", &["alertmanager.yml"]),
    ("${QUIPU_GEO:-./geo}", &["./geo"]),
    ("${QUIPU_ALERT_NETWORK:-doors}", &["doors"]),
];

/// The values of a text whose variables stand for these.
fn each_choice(text: &str) -> Vec<String> {
    CHOICES.iter().fold(vec![text.to_owned()], |texts, (variable, values)| {
        let filled = |text: &String| values.iter().map(|value| text.replace(variable, value)).collect();
        let mut all: Vec<String> = texts.iter().flat_map::<Vec<String>, _>(filled).collect();
        all.dedup();
        all
    })
}

/// All problems of a compose file.
fn problems(text: &str) -> Vec<String> {
    let file = yaml(text);
    let mut problems = Vec::new();
    for (name, service) in file["services"].as_object().unwrap() {
        problems.extend(image_problems(name, service));
        problems.extend(mount_problems(name, service, &file));
        problems.extend(rights_problems(name, service));
        let mut found = Vec::new();
        strings(&service["environment"], name, &mut found);
        for (key, value) in found {
            let names_a_file = value.starts_with("/run/secrets/");
            if (key.ends_with("PASSWORD") || key.ends_with("_KEY")) && !value.is_empty() {
                problems.push(format!("{key} holds a secret"));
            }
            if key.ends_with("_FILE") && !names_a_file {
                problems.push(format!("{key} is no file of /run/secrets"));
            }
            let url = url::Url::parse(&value).ok();
            if url.is_some_and(|url| url.password().is_some()) {
                problems.push(format!("{key} holds a password"));
            }
            let secret = value.strip_prefix("/run/secrets/").unwrap_or_default();
            if names_a_file && !list(service, "secrets").contains(&secret) {
                problems.push(format!("{key}: {secret} is not mounted"));
            }
        }
        for secret in list(service, "secrets") {
            let from = file["secrets"][secret]["file"].as_str().unwrap_or_default();
            if !from.starts_with("${QUIPU_SECRETS:-./secrets}/") {
                problems.push(format!("{name}: secret {secret} is no file of secrets/"));
            }
        }
    }
    problems
}

fn image_problems(name: &str, service: &Value) -> Vec<String> {
    let image = service["image"].as_str().unwrap_or_default();
    let target = service["build"]["target"].as_str();
    let own = OWN.iter().find(|(own, _)| *own == image).map(|(_, stage)| *stage);
    let is_good = match (own, target) {
        (Some(stage), None) => service["pull_policy"] == "never" && stage == "quipu",
        (Some(stage), Some(target)) => {
            stage == target && read("Dockerfile").contains(&format!(" AS {target}\n"))
        }
        (None, target) => is_pinned(image) && target.is_none(),
    };
    if is_good { Vec::new() } else { vec![format!("{name}: image {image:?}, target {target:?}")] }
}

fn mount_problems(name: &str, service: &Value, file: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for port in list(service, "ports") {
        if !port.starts_with("127.0.0.1:") {
            problems.push(format!("{name}: port {port} is open to others"));
        }
    }
    for volume in list(service, "volumes") {
        let (from, _) = volume.rsplit_once(":/").unwrap_or((volume, ""));
        if from.starts_with(['.', '$']) {
            let missing = each_choice(from).into_iter().filter(|path| !root().join(path).exists());
            problems.extend(missing.map(|path| format!("{name}: {path} is not there")));
            if !volume.ends_with(":ro") {
                problems.push(format!("{name}: {volume} can be written to"));
            }
        } else if file["volumes"].get(from).is_none() {
            problems.push(format!("{name}: volume {from} is not declared"));
        }
    }
    let networks: Vec<String> = list(service, "networks").into_iter().flat_map(each_choice).collect();
    let outside = networks.iter().any(|network| network == "outside");
    if !networks.iter().any(|network| network == "inside") || outside != CRAWLERS.contains(&name) {
        problems.push(format!("{name}: networks {networks:?}"));
    }
    // Docker publishes no port of a container that is on an internal network alone.
    if !list(service, "ports").is_empty() && networks == ["inside"] {
        problems.push(format!("{name}: its ports are not reached"));
    }
    problems
}

fn rights_problems(name: &str, service: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let mut refuse = |problem: &str| problems.push(format!("{name}: {problem}"));
    let check = list(&service["healthcheck"], "test");
    let ends_by_itself = service["restart"] == "no" && service["healthcheck"]["disable"] == true;
    if check.first() != Some(&"CMD") && !ends_by_itself {
        refuse("no health check");
    }
    if check.iter().any(|word| word.ends_with("sh") || word.contains("/dev/tcp")) {
        refuse("its health check is a shell's trick");
    }
    if service["image"] == "quipu:local"
        && !ends_by_itself
        && !check.get(1..).is_some_and(|rest| rest.starts_with(&["quipu", "health"]))
    {
        refuse("its health check is not `quipu health`");
    }
    let user = service["user"].as_str().unwrap_or("root").split(':').next().unwrap();
    if service["privileged"] == true || service["network_mode"] == "host" || ["root", "0"].contains(&user) {
        refuse("more rights than it needs");
    }
    if !list(service, "security_opt").contains(&"no-new-privileges:true")
        || list(service, "cap_drop") != ["ALL"]
        || !list(service, "cap_add").is_empty()
    {
        refuse("may gain rights");
    }
    if service["read_only"] != true {
        refuse("its root can be written to");
    }
    let limits = &service["deploy"]["resources"]["limits"];
    if ["cpus", "memory", "pids"].iter().any(|limit| limits[limit].is_null()) {
        refuse("no limit of cpus, memory or pids");
    }
    problems
}

#[test]
fn the_containers_are_pinned_private_bounded_and_complete() {
    assert_eq!(problems(&read("docker-compose.yaml")), Vec::<String>::new());
}

/// The owner can disable the triggers of journals, and a superuser everything.
#[test]
fn no_container_that_dials_relays_can_change_the_schema() {
    let file = yaml(&read("docker-compose.yaml"));
    let mut with_owner = Vec::new();
    for (name, service) in file["services"].as_object().unwrap() {
        let has = |secret| list(service, "secrets").contains(&secret);
        if has("quipu_owner") || has("postgres") {
            assert_eq!(list(service, "networks"), ["inside"], "{name}");
            with_owner.push(name.as_str());
        }
        let has_url = service["environment"].get("QUIPU_OWNER_DATABASE_URL").is_some();
        assert_eq!(has_url, ["owner", "vanisher"].contains(&name.as_str()), "{name}");
    }
    with_owner.sort_unstable();
    assert_eq!(with_owner, ["owner", "postgres", "setup", "vanisher"]);
}

/// Any web page in a browser on the host could use them. Grafana, which asks for a password, shows both.
#[test]
fn prometheus_and_alertmanager_are_not_published() {
    let file = yaml(&read("docker-compose.yaml"));
    for name in ["prometheus", "alertmanager"] {
        assert_eq!(list(&file["services"][name], "ports"), Vec::<&str>::new(), "{name}");
    }
    let no_origin = "--web.cors.origin=^$";
    let command = list(&file["services"]["prometheus"], "command");
    // Compose writes $ as $$.
    assert!(command.contains(&format!("{no_origin}$").as_str()), "{command:?}");
    let sources = yaml(&read("monitoring/grafana/provisioning/datasources/quipu.yaml"));
    let sources = sources["datasources"].as_array().unwrap();
    for shown in ["prometheus", "alertmanager"] {
        assert!(sources.iter().any(|source| source["type"] == shown), "Grafana shows {shown}");
    }
    let document = read("docs/operations.md");
    let arguments = document.lines().find(|line| line.contains("/etc/default/prometheus "));
    assert!(arguments.unwrap().contains(no_origin), "without docker compose, too");
}

/// The number behind `key` in the text of a configuration file, with or without spaces around `=`.
fn number_of(text: &str, key: &str) -> u32 {
    let lines =
        text.lines().filter(|line| !line.starts_with([';', '#'])).map(|line| line.replace(" = ", "="));
    let words: Vec<String> =
        lines.flat_map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    let mut values = words.iter().filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    values.next_back().unwrap_or_else(|| panic!("no {key}")).parse().unwrap()
}

/// What `pgbouncer/container/databases.ini` says about connections.
#[test]
fn postgresql_has_a_connection_for_every_container_and_every_role() {
    let (file, databases) = (yaml(&read("docker-compose.yaml")), read("pgbouncer/container/databases.ini"));
    let pools = read("pgbouncer/pgbouncer.ini");
    let server = read("postgres/container/postgresql.conf");
    let size = |service: &Value, pool: &str| -> u32 {
        let value =
            service["environment"][format!("QUIPU__DATABASE__{pool}_CONNECTIONS_MAX")].as_str().unwrap();
        value.rsplit_once(":-").unwrap().1.trim_end_matches('}').parse().unwrap()
    };
    let (mut through_pgbouncer, mut direct_max) = (0, 0);
    for service in file["services"].as_object().unwrap().values() {
        let is_process = service["image"] == "quipu:local" && service["restart"] != "no";
        if !is_process {
            continue;
        }
        let (session, read) = (size(service, "SESSION"), size(service, "READ"));
        let address =
            |variable: &str| service["environment"][variable].as_str().map(|url| url.contains("@postgres:"));
        match (address("QUIPU_SESSION_DATABASE_URL").unwrap(), address("QUIPU_READ_DATABASE_URL")) {
            // With the probe, and the guard.
            (true, read_is_direct) => {
                direct_max = direct_max.max(session + 2 + if read_is_direct.is_none() { read } else { 0 });
            }
            (false, None) => through_pgbouncer += session + read + 1,
            (false, Some(_)) => panic!("a read URL of its own"),
        }
    }
    let (pool_size, all) = (number_of(&databases, "pool_size"), number_of(&databases, "max_db_connections"));
    let commands = 10;
    assert_eq!((through_pgbouncer, direct_max), (60, 10));
    assert!(through_pgbouncer + commands <= pool_size);
    let people = 3 * number_of(&pools, "max_user_connections");
    let writers = 20;
    assert!(pool_size + people + writers <= all);
    let (of_the_owner, of_superusers) = (7, 3);
    assert!(all + direct_max + of_the_owner + of_superusers <= number_of(&server, "max_connections"));
    assert!(databases.lines().any(|line| line.starts_with("quipu = ")), "the database is named");
}

#[test]
fn only_the_outside_leads_out() {
    let networks = &yaml(&read("docker-compose.yaml"))["networks"];
    assert_eq!(networks["inside"]["internal"], true);
    let masquerade = "com.docker.network.bridge.enable_ip_masquerade";
    assert_eq!(networks["doors"]["driver_opts"][masquerade], "false");
    assert!(networks.get("outside").is_some());
    assert_eq!(networks.as_object().unwrap().len(), 3);
}

/// A container with Docker's socket can do everything on the machine: it is started by a file of its own only.
#[test]
fn what_restarts_containers_is_optional_and_has_dockers_socket_and_nothing_else() {
    let file = yaml(&read("docker-compose.autoheal.yaml"));
    let services = file["services"].as_object().unwrap();
    assert_eq!(services.keys().collect::<Vec<_>>(), ["autoheal", "blossom"]);
    let autoheal = &services["autoheal"];
    assert!(is_pinned(autoheal["image"].as_str().unwrap()));
    assert_eq!(list(autoheal, "volumes"), ["/var/run/docker.sock:/var/run/docker.sock"]);
    assert_eq!(autoheal["network_mode"], "none");
    assert!(autoheal.get("ports").is_none() && autoheal.get("secrets").is_none());
    let label = autoheal["environment"]["AUTOHEAL_CONTAINER_LABEL"].as_str().unwrap();
    assert_eq!(services["blossom"]["labels"][label], "true");
    assert!(!read("docker-compose.yaml").contains("docker.sock"));
}

/// Every service has a container in profile `services`, and only one process runs all of them in `all-in-one`.
#[test]
fn every_service_has_a_container() {
    let file = yaml(&read("docker-compose.yaml"));
    for service in ServiceName::ALL {
        let name = service.as_str();
        // Two that are not for every instance: one takes the place of the synchronizer, one erases.
        let (container, profile) = match service {
            ServiceName::PrioritySynchronizer => ("synchronizer", "services"),
            ServiceName::Vanisher => (name, "vanisher"),
            _ => (name, "services"),
        };
        let described = &file["services"][container];
        assert_eq!(list(described, "profiles"), [profile], "{name}");
        let command = list(described, "command");
        assert!(command == ["run", name] || command[1].starts_with("${QUIPU_SYNCHRONIZER:-"), "{command:?}");
    }
    let all = &file["services"]["quipu"];
    assert_eq!((list(all, "profiles"), list(all, "command")), (vec!["all-in-one"], vec!["up"]));
}

/// `scripts/compose-secrets` makes each file that the compose file reads, and no file twice.
#[test]
fn the_secrets_are_made_once_and_for_the_owner() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("secrets");
    let make = || {
        let made = Command::new(root().join("scripts/compose-secrets")).arg(&secrets).status().unwrap();
        assert!(made.success());
        let read = |entry: fs::DirEntry| {
            let (name, path) = (entry.file_name().into_string().unwrap(), entry.path());
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o444, "{name}");
            (name, fs::read_to_string(path).unwrap())
        };
        fs::read_dir(&secrets).unwrap().map(|entry| read(entry.unwrap())).collect::<BTreeMap<_, _>>()
    };
    let first = make();
    assert_eq!(first, make(), "existing files stay");
    assert_eq!(secrets.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let file = yaml(&read("docker-compose.yaml"));
    let named: Vec<&String> = file["secrets"].as_object().unwrap().keys().collect();
    for name in &named {
        assert!(first.contains_key(*name), "{name} is not made");
    }
    assert_eq!(first.len(), named.len());
    let random: BTreeSet<&String> = first.values().filter(|value| value.len() == 48).collect();
    assert_eq!(random.len(), 8, "each password is another");
}

#[test]
fn a_compose_file_with_problems_is_refused() {
    let text = "
x-base: &base
  security_opt: ['no-new-privileges:true']
  cap_drop: [ALL]
  read_only: true
  user: someone
  deploy: { resources: { limits: { cpus: '1', memory: 1m, pids: 1 } } }
  healthcheck: { test: [CMD, 'true'] }
services:
  one:
    image: postgres
    ports: ['5432:5432', '0.0.0.0:1:1']
    volumes: ['./nowhere.conf:/etc/x.conf', 'lost:/data']
    networks: [inside]
    environment: { A_PASSWORD: secret, B_FILE: /run/secrets/b, C_FILE: ./c, URL: 'postgres://a:b@c/d' }
  two:
    <<: *base
    build: { context: ., target: nothing }
    privileged: true
    networks: [outside]
  three:
    <<: *base
    image: quipu:local
    pull_policy: never
    networks: [inside]
    secrets: [open]
    healthcheck: { test: [CMD, bash, '-c', 'exec 3<>/dev/tcp/127.0.0.1/1'] }
secrets: { open: { environment: OPEN } }
volumes: {}
";
    assert_eq!(
        problems(text),
        [
            "one: image \"postgres\", target None",
            "one: port 5432:5432 is open to others",
            "one: port 0.0.0.0:1:1 is open to others",
            "one: ./nowhere.conf is not there",
            "one: ./nowhere.conf:/etc/x.conf can be written to",
            "one: volume lost is not declared",
            "one: its ports are not reached",
            "one: no health check",
            "one: more rights than it needs",
            "one: may gain rights",
            "one: its root can be written to",
            "one: no limit of cpus, memory or pids",
            "one.A_PASSWORD holds a secret",
            "one.B_FILE: b is not mounted",
            "one.C_FILE is no file of /run/secrets",
            "one.URL holds a password",
            "three: its health check is a shell's trick",
            "three: its health check is not `quipu health`",
            "three: secret open is no file of secrets/",
            "two: image \"\", target Some(\"nothing\")",
            "two: networks [\"outside\"]",
            "two: more rights than it needs",
        ]
    );
    assert!(is_pinned("prom/prometheus:v3.5.0"));
    assert!(
        !is_pinned("postgres:latest")
            && !is_pinned("registry:5000/postgres")
            && !is_pinned("postgres:alpine")
    );
}

/// `QUIPU__…` variables with their values in a file of any of our formats, including commented ones.
fn settings_named_in(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("# "));
    let named = lines.filter(|line| line.starts_with("QUIPU__") && !line.starts_with("QUIPU__<"));
    named
        .map(|line| {
            let (name, value) = line.split_once(['=', ':']).unwrap();
            let value = value.trim().trim_matches(['"', '\'']);
            let value = value
                .strip_prefix("${")
                .and_then(|rest| rest.split_once(":-"))
                .map_or(value, |(_, or)| or.trim_end_matches('}'));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn every_setting_named_in_the_containers_files_exists() {
    let files = [
        "docker-compose.yaml",
        ".env.example",
        "implementations/bigbrotr/.env.example",
        "implementations/lilbrotr/.env.example",
    ];
    for file in files {
        let named = settings_named_in(&read(file));
        assert!(!named.is_empty(), "{file}");
        let sources = Sources {
            implementation: "bigbrotr".to_owned(),
            environment: named.into_iter().collect(),
            working_dir: std::env::temp_dir().join("quipu-no-such-folder"),
            settings_file: None,
            overrides: Vec::new(),
        };
        let configuration = Configuration::load(sources).unwrap_or_else(|error| panic!("{file}: {error}"));
        if file == "docker-compose.yaml" {
            let settings = configuration.settings;
            assert!(settings.networks.tor.enabled, "onion relays are crawled");
            assert_eq!(settings.networks.tor.proxy_address.as_deref(), Some("tor:9050"));
            let relay_id = settings.services.messages.relay_id;
            assert_eq!(
                relay_id, "ws://127.0.0.1:4705/ws",
                "the address that the published port is dialled by"
            );
        }
    }
    let unknown = Sources {
        implementation: "bigbrotr".to_owned(),
        environment: [("QUIPU__SERVICES__SYNCHRONIZER__RELAYS_AT_ONCE", "32")].into_iter().collect(),
        working_dir: std::env::temp_dir().join("quipu-no-such-folder"),
        settings_file: None,
        overrides: Vec::new(),
    };
    assert!(Configuration::load(unknown).is_err(), "an unknown key is noticed");
}

#[test]
fn each_variable_of_the_compose_file_is_in_the_example() {
    let compose = read("docker-compose.yaml");
    for example in
        [".env.example", "implementations/bigbrotr/.env.example", "implementations/lilbrotr/.env.example"]
    {
        let known = read(example);
        for variable in compose.split("${").skip(1) {
            let name = variable.split([':', '}']).next().unwrap();
            assert!(
                known.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{name}="))),
                "{example} lacks {name}"
            );
        }
        let filled = known.lines().find(|line| line.contains("PASSWORD=") && !line.ends_with('='));
        assert_eq!(filled, None, "{example} holds no password");
    }
}

#[test]
fn each_implementation_is_the_one_compose_file_under_its_name() {
    for entry in fs::read_dir(root().join("implementations")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let file = yaml(&read(&format!("implementations/{name}/docker-compose.yaml")));
        assert_eq!(file["name"], name.as_str());
        assert_eq!(file["include"][0]["path"], "../../docker-compose.yaml");
        assert_eq!(file["include"][0]["project_directory"], "../..");
        assert!(file.get("services").is_none(), "{name}: differences belong into its configuration");
        let example = read(&format!("implementations/{name}/.env.example"));
        assert!(
            example.contains(&format!("\nQUIPU_IMPLEMENTATION={name}\n")),
            "{name}: its example names another"
        );
    }
}

/// A program that was built elsewhere; not in the repository.
const PREBUILT: &str = "prebuilt/quipu";

#[test]
fn images_are_built_from_pinned_ones_and_run_without_rights() {
    let dockerfile = read("Dockerfile");
    let stages: Vec<&str> = dockerfile.split("\nFROM ").skip(1).collect();
    assert_eq!(stages.len(), 6);
    // Stages that only hand over the program.
    let is_made_of = |name: &str| ["source", "prebuilt", "program"].contains(&name);
    for stage in stages {
        let (image, name) = stage.lines().next().unwrap().split_once(" AS ").expect("a stage has a name");
        assert!(is_pinned(image) || image == "${PROGRAM}", "{name} is built from {image}");
        let user = stage.lines().rev().find_map(|line| line.strip_prefix("USER "));
        assert!(
            is_made_of(name)
                || user.is_some_and(|user| !["root", "0"].contains(&user.split(':').next().unwrap())),
            "{name} runs as {user:?}"
        );
        for copied in stage.lines().filter_map(|line| line.strip_prefix("COPY ")) {
            let from = copied.split_whitespace().next().unwrap();
            let is_made = from.starts_with("--from=") || from == PREBUILT;
            assert!(is_made || root().join(from).exists(), "{name} copies {from}");
        }
    }
}

/// The build context is an allow-list that must contain every file that the build reads.
#[test]
fn the_build_context_has_what_the_build_reads_and_no_secrets() {
    let ignore = read(".dockerignore");
    let lines: Vec<&str> = ignore.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.first(), Some(&"*"));
    assert_eq!(lines.last(), Some(&"**/.env"));
    for path in lines.iter().filter_map(|line| line.strip_prefix('!')) {
        assert!(path == PREBUILT || root().join(path).exists(), "{path} is not there");
    }
    for needed in [
        "Cargo.toml",
        "Cargo.lock",
        "build.rs",
        ".cargo",
        ".sqlx",
        "src",
        "benches",
        "migrations",
        "seeds",
        "pgbouncer",
        "postgres",
    ] {
        assert!(lines.contains(&format!("!{needed}").as_str()), "the build reads {needed}");
    }
}

#[test]
fn prometheus_accepts_its_configuration() {
    let checked = Command::new("promtool")
        .args(["check", "config", "monitoring/prometheus.yml"])
        .current_dir(root())
        .output()
        .expect("promtool, of the Debian package `prometheus`");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
