//! Settings: order of sources, refusals, secrets.

use std::fs;
use std::path::Path;

use quipu::config::{
    ConfigError, Configuration, Environment, Implementation, Pooler, RedirectStrategy, Sources,
};
use tempfile::TempDir;

/// A folder with these files, and an empty `config/brotr.yaml` unless one is given.
fn implementation(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in [("config/brotr.yaml", "")].iter().chain(files) {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn load(
    folder: &Path,
    environment: &[(&str, &str)],
    overrides: &[&str],
) -> Result<Configuration, ConfigError> {
    load_with(folder, None, environment, overrides)
}

/// With a settings file of that name in the folder.
fn load_with(
    folder: &Path,
    settings_file: Option<&str>,
    environment: &[(&str, &str)],
    overrides: &[&str],
) -> Result<Configuration, ConfigError> {
    Configuration::load(Sources {
        implementation: folder.to_str().unwrap().to_owned(),
        environment: environment.iter().copied().collect(),
        working_dir: folder.join("elsewhere"),
        settings_file: settings_file.map(|name| folder.join(name)),
        overrides: overrides.iter().map(|&text| text.to_owned()).collect(),
    })
}

/// The refusal as lines, with the folder cut out.
fn refusal(folder: &TempDir, environment: &[(&str, &str)], overrides: &[&str]) -> Vec<String> {
    let error = load(folder.path(), environment, overrides).expect_err("must be refused").to_string();
    let folder = format!("{}/", folder.path().display());
    error.lines().skip(1).map(|line| line.trim().replace(&folder, "")).collect()
}

#[test]
fn later_sources_win() {
    let folder = implementation(&[
        (
            "config/brotr.yaml",
            "services: { synchronizer: { interval_s: 1, end_lag_s: 1, since_unix_s: 1, page_events: 1 } }",
        ),
        ("config/services/synchronizer.yaml", "end_lag_s: 2\nsince_unix_s: 2\npage_events: 2"),
        (
            ".env",
            "QUIPU__SERVICES__SYNCHRONIZER__CATCHING_UP_MAX=3\nQUIPU__SERVICES__SYNCHRONIZER__SINCE_UNIX_S=3",
        ),
    ]);
    let environment = [
        ("QUIPU__SERVICES__SYNCHRONIZER__SINCE_UNIX_S", "4"),
        ("QUIPU__SERVICES__SYNCHRONIZER__PAGE_EVENTS", "4"),
    ];
    let configuration = load(folder.path(), &environment, &["services.synchronizer.page_events=5"]).unwrap();
    let synchronizer = &configuration.settings.services.synchronizer;
    assert_eq!(synchronizer.lease_s.get(), 60, "default");
    assert_eq!(synchronizer.interval_s.get(), 1, "brotr.yaml over default");
    assert_eq!(synchronizer.end_lag_s, 2, "the service's file over brotr.yaml");
    assert_eq!(synchronizer.catching_up_max.get(), 3, ".env");
    assert_eq!(synchronizer.since_unix_s, 4, "the environment over .env and files");
    assert_eq!(synchronizer.page_events.get(), 5, "--set over the environment");
}

#[test]
fn the_working_folders_env_file_comes_before_the_implementations() {
    let folder = implementation(&[
        (".env", "QUIPU__LOG__LEVEL=warn\nQUIPU__LOG__FORMAT=json"),
        ("elsewhere/.env", "QUIPU__LOG__LEVEL=debug"),
    ]);
    let settings = load(folder.path(), &[], &[]).unwrap().settings;
    assert_eq!(settings.log.level, "debug");
    assert_eq!(settings.log.format, quipu::config::LogFormat::Json);
}

#[test]
fn an_unknown_key_is_refused_with_file_and_key() {
    let folder = implementation(&[("config/services/projector.yaml", "intervall_ms: 5")]);
    assert_eq!(
        refusal(&folder, &[], &[]),
        [
            "config/services/projector.yaml: services.projector.intervall_ms: unknown key; known here: enabled, interval_ms"
        ]
    );
}

#[test]
fn a_wrong_type_is_refused_with_file_key_and_reason() {
    let folder = implementation(&[("config/brotr.yaml", "database:\n  write_connections_max: many")]);
    assert_eq!(
        refusal(&folder, &[], &[]),
        [
            "config/brotr.yaml: database.write_connections_max: invalid type: found string \"many\", expected a nonzero u16"
        ]
    );
}

#[test]
fn a_network_keeps_its_own_defaults_for_keys_that_are_not_set() {
    let folder = implementation(&[(
        "config/brotr.yaml",
        "networks: { tor: { enabled: true }, clearnet: { idle_timeout_s: 5 } }",
    )]);
    let environment = [("QUIPU__NETWORKS__TOR__PROXY_ADDRESS", "tor:9050")];
    let networks = load(folder.path(), &environment, &[]).unwrap().settings.networks;
    assert!(networks.tor.enabled && networks.clearnet.enabled && !networks.i2p.enabled);
    assert_eq!(networks.tor.proxy_address.as_deref(), Some("tor:9050"));
    assert_eq!((networks.tor.connect_timeout_s.get(), networks.tor.relays_at_once.get()), (60, 32));
    assert_eq!((networks.clearnet.connect_timeout_s.get(), networks.clearnet.idle_timeout_s.get()), (10, 5));
}

#[test]
fn a_network_is_refused_with_key_and_reason() {
    let folder = implementation(&[(
        "config/brotr.yaml",
        "networks: { clearnet: { proxy_address: 'proxy:1' }, tor: { proxy_address: 'socks5://tor:9050' } }",
    )]);
    assert_eq!(
        refusal(&folder, &[], &[]),
        [
            "config/brotr.yaml: networks.clearnet.proxy_address: clearnet is dialled directly",
            "config/brotr.yaml: networks.tor.proxy_address: `socks5://tor:9050`: expected host:port",
        ]
    );
    let slow = "networks: { clearnet: { connect_timeout_s: 601 }, i2p: { idle_timeout_s: 4294967295 }, tor: { idle_timeout_s: 600 } }";
    assert_eq!(
        refusal(&implementation(&[("config/brotr.yaml", slow)]), &[], &[]),
        [
            "config/brotr.yaml: networks.clearnet.connect_timeout_s: 601: at most 600 seconds",
            "config/brotr.yaml: networks.i2p.idle_timeout_s: 4294967295: at most 600 seconds",
        ]
    );
    let folder = implementation(&[("config/brotr.yaml", "networks: { tor: { proxy: 'tor:9050' } }")]);
    let refused = refusal(&folder, &[], &[]);
    assert!(refused[0].starts_with("config/brotr.yaml: networks.tor.proxy: unknown key"), "{refused:?}");
}

#[test]
fn all_refusals_are_shown_at_once_each_in_the_spelling_of_its_source() {
    let folder = implementation(&[
        ("config/brotr.yaml", "log: { files_max: 0, colour: red }"),
        ("config/services/gardener.yaml", "enabled: true"),
        ("config/services/console.yaml", "enabled: [maybe]"),
        ("config/services/ingest.yaml", "a: b: c"),
    ]);
    let environment = [
        ("QUIPU__DATABASE__POOLER", "mine"),
        ("QUIPU__LOG__LEVEL", "quipu=loud"),
        ("QUIPU_SESSION_DATABASE_URL", "hunter2"),
    ];
    let refused = refusal(&folder, &environment, &["http.ops_address=here"]);
    for expected in [
        "config/brotr.yaml: log.files_max: ",
        "config/brotr.yaml: log.colour: unknown key",
        "config/services/gardener.yaml: services.gardener: unknown key; known here: initializer, finder, validator, synchronizer",
        "config/services/console.yaml: services.console.enabled: invalid type",
        "config/services/ingest.yaml: not readable as YAML: mapping values are not allowed in this context at line 1, column 5",
        "environment: QUIPU__DATABASE__POOLER: `mine` is none of: embedded, external",
        "environment: QUIPU_SESSION_DATABASE_URL: not a URL",
        "environment: DATABASE_URL: must be set",
        "--set: http.ops_address: invalid socket address syntax",
    ] {
        assert!(
            refused.iter().any(|line| line.starts_with(expected)),
            "{expected} is missing in {refused:#?}"
        );
    }
    assert!(!refused.concat().contains("hunter2"));
}

#[test]
fn problems_beyond_types_name_their_source_too() {
    let folder = implementation(&[(
        "config/brotr.yaml",
        "http: { hosts: ['archive.example', 'https://archive.example'] }",
    )]);
    let refused =
        refusal(&folder, &[("QUIPU__LOG__LEVEL", "quipu=loud")], &["http.ops_address=127.0.0.1:4700"]);
    assert_eq!(refused.len(), 3, "{refused:#?}");
    assert!(refused[0].starts_with("environment: QUIPU__LOG__LEVEL: "));
    assert_eq!(
        refused[1],
        "config/brotr.yaml: http.hosts: `https://archive.example`: expected a host name without scheme, port or path"
    );
    assert_eq!(refused[2], "--set: http.ops_address: the same as `http.console_address`");
}

#[test]
fn every_section_refuses_what_its_types_allow() {
    let folder = implementation(&[(
        "config/brotr.yaml",
        "
log: { level: 'quipu=loud' }
services:
  finder: { lists: [{ url: 'ftp://lists.example.com' }, { url: 'https://lists.example.com', path: '$[' }] }
  synchronizer: { only_relays: ['relay.example.com'] }
  priority_synchronizer: { enabled: true }
  monitor: { publish: true, only_relays: ['wss://Relay.example.com'] }
  messages: { relay_id: '' }
  blossom: { replicas_min: 2, allowed_pubkeys: ['npub1'], media_types: ['image'], public_url: 'https://u:hunter2@b.example.com' }
  console: { grafana_url: 'javascript:alert(1)', prometheus_url: 'http://me:hunter2@127.0.0.1:9090/', alertmanager_url: 'http://127.0.0.1:9093/' }
  ingest: { vanish_relay_urls: ['wss://Relay.example.com'] }
",
    )]);
    let keys = |environment: &[(&str, &str)]| -> Vec<String> {
        let refused = refusal(&folder, environment, &[]);
        refused.iter().map(|line| line.split(": ").nth(1).unwrap().to_owned()).collect()
    };
    let [before, monitor, after] = [
        &[
            "log.level",
            "services.finder.lists",
            "services.finder.lists",
            "services.synchronizer.only_relays",
            "services.priority_synchronizer.enabled",
            "services.monitor.only_relays",
        ][..],
        &["services.monitor.publish"],
        &[
            "services.monitor.publish_relays",
            "services.messages.relay_id",
            "services.blossom.replicas_min",
            "services.blossom.allowed_pubkeys",
            "services.blossom.media_types",
            "services.blossom.public_url",
            "services.console.grafana_url",
            "services.console.prometheus_url",
            "services.ingest.vanish_relay_urls",
        ],
    ];
    assert_eq!(keys(&[]), [before, monitor, after].concat());
    // A key that cannot be read is one problem, not two.
    let bad_key = [("QUIPU_MONITOR_SECRET_KEY", "hunter2")];
    assert_eq!(keys(&bad_key), [&["QUIPU_MONITOR_SECRET_KEY"][..], before, after].concat());
}

#[test]
fn a_key_twice_in_a_file_is_refused() {
    let folder = implementation(&[("config/services/console.yaml", "enabled: true\nenabled: false")]);
    assert!(refusal(&folder, &[], &[])[0].starts_with("config/services/console.yaml: not readable as YAML"));
}

#[test]
fn a_problem_with_a_variable_names_the_file_that_it_comes_from() {
    let folder = implementation(&[(".env", "QUIPU__LOG__FORMAT=xml\nDATABASE_URL=mysql://db\n")]);
    let refused = refusal(&folder, &[("QUIPU_READER_DATABASE_URL", "mysql://db")], &[]);
    assert_eq!(
        refused,
        [
            ".env: QUIPU__LOG__FORMAT: `xml` is none of: text, json",
            ".env: DATABASE_URL: not a URL that begins with postgres:// or postgresql://",
            "environment: QUIPU_READER_DATABASE_URL: not a URL that begins with postgres:// or postgresql://",
        ]
    );
}

#[test]
fn a_bad_line_of_an_env_file_is_named_but_not_shown() {
    let folder = implementation(&[(".env", "# ours\n\nGOOD=1\nPASS WORD hunter2\n")]);
    let refused = refusal(&folder, &[], &[]);
    assert_eq!(refused, [".env: line 4 is not `NAME=value`"]);
}

#[test]
fn secrets_are_masked_everywhere() {
    let folder = implementation(&[]);
    let environment = [
        ("DATABASE_URL", "postgres://quipu:hunter2@db:6432/archive?password=hunter2"),
        ("QUIPU_POOLER", "external"),
    ];
    let configuration = load(folder.path(), &environment, &[]).unwrap();
    let all_variables: Environment = environment.into_iter().collect();
    let shown = format!("{configuration:?} {all_variables:?} {}", configuration.effective_json());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("postgres://***@db:6432/archive"), "{shown}");
    assert_eq!(configuration.database.pooler, Pooler::External);
    assert_eq!(configuration.database.write.unwrap().expose(), environment[0].1);
}

#[test]
fn the_bucket_of_jobs_is_named_by_the_variables_of_blobforge() {
    let folder = implementation(&[]);
    let endpoint = ("BLOBFORGE_S3_ENDPOINT", "http://minio.example:9000");
    let (access, secret) = (("BLOBFORGE_S3_ACCESS_KEY", "accesskey"), ("BLOBFORGE_S3_SECRET_KEY", "hunter2"));
    let prefix = ("BLOBFORGE_S3_PREFIX", "007");
    let configuration = load(folder.path(), &[endpoint, access, secret, prefix], &[]).unwrap();
    let files = &configuration.settings.services.jobs.files;
    assert_eq!(
        (files.bucket(), files.s3_region.as_str(), files.s3_prefix.as_deref()),
        (Some("blobforge"), "auto", Some("007"))
    );
    assert_eq!(configuration.object_keys.as_ref().unwrap().secret_key.expose(), "hunter2");
    let shown = format!("{configuration:?} {}", configuration.effective_json());
    assert!(!shown.contains("hunter2") && !shown.contains("accesskey"), "{shown}");

    let missing = "must be set: the bucket of services.jobs.files needs both keys";
    let refused = |environment: &[(&str, &str)]| refusal(&folder, environment, &[]);
    assert_eq!(refused(&[endpoint, access]), [format!("environment: BLOBFORGE_S3_SECRET_KEY: {missing}")]);
    assert_eq!(refused(&[endpoint]), [format!("environment: BLOBFORGE_S3_ACCESS_KEY: {missing}")]);
    let amazon = refused(&[("BLOBFORGE_S3_BUCKET", "files"), access, secret]);
    assert!(amazon[0].ends_with("without s3_endpoint the region of the bucket is needed"), "{amazon:?}");
    let with_password = refused(&[("BLOBFORGE_S3_ENDPOINT", "http://u:hunter2@minio:9000"), access, secret]);
    assert!(!with_password.is_empty() && !with_password.concat().contains("hunter2"), "{with_password:?}");
    let none = load(folder.path(), &[], &[]).unwrap();
    assert!(none.object_keys.is_none() && none.settings.services.jobs.files.bucket().is_none());
}

#[test]
fn webhooks_of_jobs_need_keys_that_are_never_shown() {
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let receivers = "webhooks: [{ name: billing, url: 'https://billing.example.com/quipu' }]";
    let folder =
        implementation(&[("keys", &format!("{key} {key}\n")), ("config/services/jobs.yaml", receivers)]);
    let keys = folder.path().join("keys").to_str().unwrap().to_owned();
    let file = [("QUIPU_JOBS_WEBHOOK_SECRET_FILE", keys.as_str())];
    let configuration = load(folder.path(), &file, &[]).unwrap_or_else(|error| panic!("{error}"));
    let [billing] = &*configuration.settings.services.jobs.webhooks else { panic!("one receiver") };
    assert_eq!((billing.attempts_max.get(), billing.types.len(), billing.statuses.len()), (20, 0, 0));
    assert_eq!(configuration.webhook_keys.as_ref().unwrap().expose().count(), 2);
    let shown = format!("{configuration:?} {}", configuration.effective_json());
    assert!(!shown.contains("MfKQ9r8") && shown.contains("billing.example.com"), "{shown}");

    let missing =
        "environment: QUIPU_JOBS_WEBHOOK_SECRET: must be set: webhooks of services.jobs.webhooks are signed";
    assert_eq!(refusal(&folder, &[], &[]), [missing]);
    let bad = refusal(&folder, &[("QUIPU_JOBS_WEBHOOK_SECRET", "hunter2")], &[]);
    assert!(bad.len() == 1 && bad[0].contains("whsec_") && !bad[0].contains("hunter2"), "{bad:?}");
    assert!(load(implementation(&[]).path(), &[], &[]).unwrap().webhook_keys.is_none());
}

#[test]
fn secrets_come_from_files_and_complete_their_urls() {
    let folder = implementation(&[
        ("url", "postgres://quipu:s3cret@db/archive\n"),
        ("password", "a b/c@d:e%41?g#h'ü\r\n"),
        ("key", "0000000000000000000000000000000000000000000000000000000000000001"),
        ("none", "\n"),
    ]);
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (url, password, key, none) = (file("url"), file("password"), file("key"), file("none"));
    let environment = [
        ("DATABASE_URL_FILE", url.as_str()),
        ("QUIPU_SESSION_DATABASE_URL", "postgres://quipu_session@db:6432/archive?sslmode=require"),
        ("QUIPU_SESSION_DATABASE_PASSWORD_FILE", password.as_str()),
        ("QUIPU_OWNER_DATABASE_URL", "postgres://quipu_owner@db/archive"),
        ("QUIPU_OWNER_DATABASE_PASSWORD", "hunter2"),
        ("QUIPU_MONITOR_SECRET_KEY_FILE", key.as_str()),
        ("QUIPU_SYNCHRONIZER_SECRET_KEY_FILE", none.as_str()),
    ];
    let configuration = load(folder.path(), &environment, &[]).unwrap_or_else(|error| panic!("{error}"));
    let database = &configuration.database;
    assert_eq!(database.write.as_ref().unwrap().expose(), "postgres://quipu:s3cret@db/archive");
    let owner = "postgres://quipu_owner:hunter2@db/archive";
    assert_eq!(database.owner.as_ref().unwrap().expose(), owner);
    let session: tokio_postgres::Config = database.session.as_ref().unwrap().expose().parse().unwrap();
    assert_eq!(session.get_password(), Some("a b/c@d:e%41?g#h'ü".as_bytes()));
    assert_eq!(session.get_ports(), [6432]);
    assert!(configuration.monitor_key.is_some());
    assert!(configuration.synchronizer_key.is_none(), "an empty file is no key");
    let shown = format!("{configuration:?} {}", configuration.effective_json());
    for secret in ["s3cret", "hunter2", "%41", "00000001"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn a_secret_in_a_fifo_or_with_characters_that_programs_drop_is_refused_at_once() {
    let folder = implementation(&[("nul", "a\0b\n"), ("mark", "\u{feff}s3cret\n")]);
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (nul, mark, fifo, directory) = (file("nul"), file("mark"), file("fifo"), file("."));
    nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR)
        .unwrap();
    let environment = [
        ("DATABASE_URL_FILE", fifo.as_str()),
        ("QUIPU_SESSION_DATABASE_URL_FILE", directory.as_str()),
        ("QUIPU_MONITOR_SECRET_KEY_FILE", nul.as_str()),
        ("QUIPU_SYNCHRONIZER_SECRET_KEY_FILE", mark.as_str()),
    ];
    let mut refused = refusal(&folder, &environment, &[]);
    refused.sort();
    assert_eq!(
        refused,
        [
            "environment: DATABASE_URL_FILE: fifo: not a regular file",
            "environment: QUIPU_MONITOR_SECRET_KEY_FILE: nul: has a control character or a byte order mark",
            "environment: QUIPU_SESSION_DATABASE_URL_FILE: .: not a regular file",
            "environment: QUIPU_SYNCHRONIZER_SECRET_KEY_FILE: mark: has a control character or a byte order mark",
        ]
    );
}

#[test]
fn a_secret_that_is_missing_doubtful_or_given_twice_is_refused_by_variable_and_file() {
    let folder = implementation(&[("secret", "one\ntwo\n"), ("long", &"x".repeat(8_193))]);
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (secret, long, absent) = (file("secret"), file("long"), file("absent"));
    let environment = [
        ("DATABASE_URL", "postgres://quipu:s3cret@db/archive"),
        ("DATABASE_PASSWORD", "s3cret"),
        ("QUIPU_SESSION_DATABASE_URL", "postgres://quipu_session@db/archive"),
        ("QUIPU_SESSION_DATABASE_URL_FILE", secret.as_str()),
        ("QUIPU_OWNER_DATABASE_URL_FILE", secret.as_str()),
        ("QUIPU_READER_DATABASE_URL_FILE", absent.as_str()),
        ("QUIPU_WRITER_DATABASE_PASSWORD", "s3cret"),
        ("QUIPU_MONITOR_SECRET_KEY_FILE", long.as_str()),
    ];
    let mut refused = refusal(&folder, &environment, &[]);
    refused.sort();
    assert_eq!(
        refused,
        [
            "environment: DATABASE_PASSWORD: DATABASE_URL has a password already; set one of them",
            "environment: QUIPU_MONITOR_SECRET_KEY_FILE: long: longer than 8192 bytes",
            "environment: QUIPU_OWNER_DATABASE_URL_FILE: secret: more than one line",
            "environment: QUIPU_READER_DATABASE_URL_FILE: absent: No such file or directory (os error 2)",
            "environment: QUIPU_SESSION_DATABASE_URL_FILE: QUIPU_SESSION_DATABASE_URL is set, too; set one of them",
            "environment: QUIPU_WRITER_DATABASE_PASSWORD: needs QUIPU_WRITER_DATABASE_URL, which it is the password of",
        ]
    );
}

#[test]
fn every_implementation_of_the_repository_is_accepted_and_holds_nothing_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("implementations");
    let mut names = Vec::new();
    for entry in fs::read_dir(&root).unwrap() {
        let folder = entry.unwrap().path();
        let configuration = load(&folder, &[], &[]).unwrap_or_else(|error| panic!("{error}"));
        let implementation = configuration.implementation;
        assert!(implementation.data_file("priority_relays.txt").unwrap().lines().count() >= 10);
        assert!(implementation.data_file("seed_relays.txt").unwrap().lines().count() > 8_000);
        assert!(implementation.postgresql_conf().unwrap().contains("synchronous_commit = on"));
        names.push(implementation.name().to_owned());
        only_settings(&folder);
    }
    names.sort();
    assert_eq!(names, ["bigbrotr", "lilbrotr"]);
    assert_eq!(Implementation::built_in(), names, "the built-in implementations are those of the folder");
}

/// Fails on a file that is neither settings, SQL, a list nor a template: implementations hold no code.
fn only_settings(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            only_settings(&path);
        } else {
            let known =
                ["yaml", "conf", "sql", "txt"].iter().any(|ext| path.extension().is_some_and(|e| e == *ext));
            assert!(
                known || [".env", ".env.example"].contains(&name),
                "{} does not belong there",
                path.display()
            );
        }
    }
}

#[test]
fn the_bare_binary_holds_the_same_files_as_the_folder() {
    for name in Implementation::built_in() {
        let built_in = Implementation::find_built_in(&name).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("implementations").join(&name);
        let on_disk = Implementation::find(folder.to_str().unwrap()).unwrap();
        assert!(built_in.folder().is_none() && on_disk.folder().is_some());
        let files = |of: &Implementation| {
            let files = of.settings_files().unwrap();
            files.into_iter().map(|file| (file.section, file.text.into_owned())).collect::<Vec<_>>()
        };
        assert_eq!(files(&built_in), files(&on_disk));
        assert!(!files(&built_in).is_empty());
        assert_eq!(built_in.postgresql_conf().unwrap(), on_disk.postgresql_conf().unwrap());
        assert_eq!(
            built_in.data_file("seed_relays.txt").unwrap(),
            on_disk.data_file("seed_relays.txt").unwrap()
        );
        assert!(built_in.data_file("../.env").is_err() && built_in.data_file(".env").is_err());
    }
}

#[test]
fn an_unknown_implementation_is_refused_with_the_list_of_known_ones() {
    let here = tempfile::tempdir().unwrap();
    assert!(
        Implementation::find(here.path().to_str().unwrap()).is_err(),
        "an empty folder is not an implementation"
    );
    let unknown = Implementation::find("tinybrotr").unwrap_err().to_string();
    assert!(unknown.contains("`tinybrotr`") && unknown.contains("bigbrotr, lilbrotr"), "{unknown}");
}

#[test]
fn stored_procedures_come_from_the_folder_or_their_absence_is_named() {
    let file = "config/postgres/init/05_procedures.sql";
    let folder = implementation(&[(file, "SELECT 1;")]);
    let find = |folder: &TempDir| Implementation::find(folder.path().to_str().unwrap()).unwrap();
    assert_eq!(find(&folder).procedures_sql().unwrap(), "SELECT 1;");
    let without = implementation(&[]);
    assert!(find(&without).procedures_sql().unwrap_err().to_string().contains(file));
}

#[test]
fn the_login_of_jobs_is_set_as_blobforge_names_it() {
    let folder = implementation(&[("secret", "hunter2\n")]);
    let secret = folder.path().join("secret").to_str().unwrap().to_owned();
    let environment = [
        ("BLOBFORGE_OIDC_ISSUER", "https://id.example.com"),
        ("BLOBFORGE_OIDC_CLIENT_ID", "4711"),
        ("BLOBFORGE_OIDC_CLIENT_SECRET_FILE", secret.as_str()),
        ("BLOBFORGE_OIDC_REDIRECT_URL", "https://jobs.example.com/auth/callback"),
        ("BLOBFORGE_OIDC_ALLOWED_GROUPS", "staff, users,,"),
        ("BLOBFORGE_OIDC_ADMIN_GROUPS", "admins"),
        ("BLOBFORGE_OIDC_GROUPS_CLAIM", "/realm_access/roles"),
    ];
    let configuration = load(folder.path(), &environment, &[]).unwrap_or_else(|error| panic!("{error}"));
    let login = &configuration.settings.services.jobs.oidc;
    assert_eq!(
        (login.issuer.as_deref(), login.client_id.as_deref()),
        (Some("https://id.example.com"), Some("4711"))
    );
    assert_eq!(
        (&*login.allowed_groups, &*login.admin_groups),
        (&["staff".into(), "users".into()][..], &["admins".into()][..])
    );
    assert_eq!(login.groups_claim, "/realm_access/roles");
    assert_eq!(configuration.oidc_secret.as_ref().unwrap().expose(), "hunter2");
    let shown = format!("{configuration:?} {}", configuration.effective_json());
    assert!(!shown.contains("hunter2"), "{shown}");
    // A proxy on this machine may pass on requests without saying so.
    let jobs = &configuration.settings.services.jobs;
    assert!(!jobs.serves_unauthenticated(([127, 0, 0, 1], 4707).into(), true));
    let refused = refusal(&folder, &environment[..2], &[]);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(
        refused[0].contains("services.jobs.oidc.redirect_url") || refused[0].contains("OIDC__REDIRECT_URL"),
        "{refused:?}"
    );
}

/// A file of Blossom Espelhator with all keys of its last version.
const ESPELHATOR: &str = r#"
upstream_servers:
  - url: "https://blossom1.example.com"
    alternative_address: "https://127.0.0.5"
    priority: 1
    supports_mirror: true          # BUD-04
    supports_upload_head: true
  - url: "https://blossom2.example.com/"
    priority: 2
server:
  listen_addr: ":7624"
  min_upload_servers: 2
  redirect_strategy: "health_based"
  download_redirect_strategy: "local"
  base_url: "https://blobs.example.com"
  timeout: 45s
  min_upload_timeout: 5m
  max_upload_timeout: 1h30m
  max_retries: 4
  max_failures: 7
  max_goroutines: 2000
  max_memory_bytes: 1073741824
  cache_ttl: 10m
  cache_max_size: 5000
  allowed_pubkeys: ["npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6"]
"#;

#[test]
fn a_file_of_blossom_espelhator_is_read_unchanged() {
    let folder = implementation(&[("config.yaml", ESPELHATOR)]);
    let port = [("QUIPU__SERVICES__BLOSSOM__FAILURES_MAX", "9")];
    let configuration =
        load_with(folder.path(), Some("config.yaml"), &port, &[]).unwrap_or_else(|error| panic!("{error}"));
    let blossom = &configuration.settings.services.blossom;
    assert_eq!(blossom.address.unwrap().to_string(), "0.0.0.0:7624");
    let names: Vec<&str> = blossom.upstreams.iter().map(quipu::config::BlossomUpstream::name).collect();
    assert_eq!(names, ["https://blossom1.example.com", "https://blossom2.example.com"]);
    assert_eq!(blossom.upstreams[0].alternative_address.as_deref(), Some("https://127.0.0.5"));
    assert!(blossom.upstreams[0].supports_mirror && !blossom.upstreams[1].supports_mirror);
    assert_eq!(
        (blossom.redirect_strategy, blossom.download_strategy()),
        (RedirectStrategy::HealthBased, RedirectStrategy::Local)
    );
    let times = [
        blossom.timeout_s,
        blossom.upload_timeout_min_s,
        blossom.upload_timeout_max_s,
        blossom.lookup_cache_s,
    ];
    assert_eq!(times.map(std::num::NonZero::get), [45, 300, 5_400, 600]);
    let counts = [blossom.replicas_min, blossom.attempts_max, blossom.tasks_max, blossom.lookup_cache_max];
    assert_eq!(counts.map(std::num::NonZero::get), [2, 5, 2_000, 5_000]);
    assert_eq!(blossom.memory_bytes_max.get(), 1 << 30);
    assert_eq!(blossom.failures_max.get(), 9, "the environment comes after the file");
    assert_eq!(blossom.public_url.as_deref(), Some("https://blobs.example.com"));
    let fiatjaf = "3bf0c63fcb93463407af97a5e5ee64fa883d107ef9e558472c4eb9aaaefa459d";
    assert_eq!(blossom.allowed_keys().into_iter().map(hex::encode).collect::<Vec<_>>(), [fiatjaf]);
}

#[test]
fn a_file_that_the_command_line_names_has_the_defaults_of_its_program_and_its_mistakes_are_named() {
    let load = |text: &str| {
        let folder = implementation(&[("config.yaml", text)]);
        let loaded = load_with(folder.path(), Some("config.yaml"), &[], &[]);
        loaded.map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    };
    let upstreams = "upstream_servers: [{ url: 'http://a.example' }, { url: 'http://b.example' }]";
    let blossom =
        load(&format!("{upstreams}\nserver: {{ timeout: 0, listen_addr: 'localhost:80' }}")).unwrap();
    let blossom = blossom.settings.services.blossom;
    assert_eq!((blossom.replicas_min.get(), blossom.timeout_s.get()), (2, 30));
    assert_eq!(blossom.address.unwrap().to_string(), "127.0.0.1:80");
    // One of Quipu.
    let quipu = load("services: { blossom: { replicas_min: 1, timeout_s: 5 } }").unwrap();
    assert_eq!(quipu.settings.services.blossom.timeout_s.get(), 5);
    for (text, expected) in [
        (
            "upstream_servers: [{ url: 'http://a.example' }]",
            "config.yaml: services.blossom.replicas_min: 2: more than 1 upstream",
        ),
        ("server: { timeout: soon }", "config.yaml: server.timeout: expected a time such as 30s or 5m"),
        ("server: { colour: red }", "config.yaml: server.colour: unknown key"),
        ("server: {}\nservices: {}", "config.yaml: services: unknown key"),
    ] {
        let refused = load(text).expect_err(text);
        assert!(refused.lines().any(|line| line.trim() == expected), "{text}: {refused}");
    }
    let folder = implementation(&[]);
    let missing = load_with(folder.path(), Some("no.yaml"), &[], &[]).unwrap_err().to_string();
    assert!(missing.contains("no.yaml: cannot be read"), "{missing}");
}

#[test]
fn buckets_for_blobs_need_keys_and_no_secret_of_blobs_is_shown() {
    let text = "upstreams: [{ url: 's3://blobs/quipu', s3_endpoint: 'http://minio.example:9000' }]";
    let folder = implementation(&[("config/services/blossom.yaml", text)]);
    let keys = [("QUIPU_BLOSSOM_S3_ACCESS_KEY", "accesskey"), ("QUIPU_BLOSSOM_S3_SECRET_KEY", "hunter2")];
    let operator = "7f3b02c9d3704396ff9b29f2b6a5a9e4a2a2f0f8f8d9c1e2b3a4958677685940";
    let configuration = load(folder.path(), &[keys[0], keys[1], ("QUIPU_BLOSSOM_KEY", operator)], &[]);
    let configuration = configuration.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(configuration.blob_keys.as_ref().unwrap().secret_key.expose(), "hunter2");
    assert_eq!(configuration.blossom_key.as_ref().unwrap().expose(), operator);
    let shown = format!("{configuration:?} {}", configuration.effective_json());
    assert!(
        !shown.contains("hunter2") && !shown.contains("accesskey") && !shown.contains(operator),
        "{shown}"
    );

    let missing = "must be set: a bucket of services.blossom.upstreams needs both keys";
    assert_eq!(
        refusal(&folder, &keys[..1], &[]),
        [format!("environment: QUIPU_BLOSSOM_S3_SECRET_KEY: {missing}")]
    );
    let bad = refusal(&folder, &[keys[0], keys[1], ("QUIPU_BLOSSOM_KEY", "hunter3")], &[]);
    assert!(
        bad.len() == 1
            && bad[0].starts_with("environment: QUIPU_BLOSSOM_KEY: ")
            && !bad[0].contains("hunter3"),
        "{bad:?}"
    );
}
