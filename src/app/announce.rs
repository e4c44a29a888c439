//! What `quipu up` says once every service has started: the instance file, the ready file and the summary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use tokio::time::timeout;

use super::database::Database;
use super::instance::Instance;
use super::registry;
use crate::base::RelayUrl;
use crate::config::{Configuration, Pooler, Settings};
use crate::lifecycle::HealthRegistry;
use crate::room::{Port, ServiceName};
use crate::store::DatabaseUrls;
use crate::store::embedded::SharedRole;
use crate::telemetry::notice;

/// After this time the log names the services that have not started yet.
const START_MAX: Duration = Duration::from_mins(1);

/// What is written, and when.
pub(super) struct Announcement {
    pub(super) instance: Instance,
    /// The file of the instance, in the data folder.
    pub(super) file: PathBuf,
    /// The file of `--ready-file`, which other programs may read: it lacks the superuser's URL.
    pub(super) ready_file: Option<PathBuf>,
    pub(super) summary: String,
    pub(super) health: HealthRegistry,
}

impl Announcement {
    /// Waits until every service has started, then writes the files and prints the summary.
    pub(super) async fn make(self) -> Result<()> {
        if timeout(START_MAX, self.health.started()).await.is_err() {
            let late = self.health.still_starting().join(", ");
            tracing::warn!("not started after {START_MAX:?}: {late}; still waiting");
            self.health.started().await;
        }
        self.instance.write(&self.file)?;
        if let Some(path) = &self.ready_file {
            Instance { admin_database_url: None, ..self.instance }.write(path)?;
        }
        notice(self.summary);
        Ok(())
    }
}

/// The content of the instance file.
pub(super) fn describe(
    urls: &DatabaseUrls,
    database: &Database,
    addresses: BTreeMap<String, String>,
    settings: &Settings,
) -> Instance {
    let url_of = |person| database.shared_role_url(person).map(|url| url.expose().to_owned());
    let console = addresses.get(Port::Console.as_str());
    Instance {
        console: console.map(|address| format!("http://{address}/")).unwrap_or_default(),
        database_url: urls.write.expose().to_owned(),
        session_database_url: urls.session.expose().to_owned(),
        owner_database_url: urls.owner.as_ref().map(|url| url.expose().to_owned()),
        reader_database_url: url_of(SharedRole::Reader),
        messages_reader_database_url: url_of(SharedRole::MessagesReader),
        writer_database_url: url_of(SharedRole::Writer),
        admin_database_url: database.admin_url().map(|url| url.expose().to_owned()),
        services: addresses,
        only_relays: settings.services.synchronizer.only_relays.clone(),
    }
}

/// The summary for people. `data` is the data folder, `port_base` the first port if all were moved; `sample` is
/// the URL of the sample relay and the number of its events.
pub(super) fn summary(
    configuration: &Configuration,
    data: &Path,
    port_base: Option<u16>,
    instance: &Instance,
    services: &[ServiceName],
    sample: Option<&(RelayUrl, usize)>,
) -> String {
    let real = for_the_real_network(data, port_base);
    let data = data.display();
    let database = match &configuration.database.write {
        None => format!("its own PostgreSQL and PgBouncer, everything under {data}"),
        Some(_) if configuration.database.is_administrators() => {
            "the given server, behind its own PgBouncer".to_owned()
        }
        Some(_) if configuration.database.pooler == Pooler::External => {
            "the given server, through the given pooler".to_owned()
        }
        Some(_) => "the given server, through the given URLs".to_owned(),
    };
    let ops = instance.services.get(Port::Ops.as_str()).map_or("", String::as_str);
    let mut lines = vec![
        String::new(),
        "Quipu runs.".to_owned(),
        String::new(),
        format!("console         {}", instance.console),
        format!("implementation  {}", configuration.implementation.name()),
        format!("database        {database}"),
        format!("services        {}", ServiceName::list(services)),
        format!("health          http://{ops}/healthz  /readyz  /metrics"),
    ];
    for listener in registry::listeners() {
        if let (Some(url), Some(address)) = (listener.url, instance.services.get(listener.name())) {
            lines.push(format!("{:<15} {}", listener.name(), url.replace("{}", address)));
        }
    }
    if let Some((url, events)) = sample {
        lines.extend([
            format!("sample relay    {url} ({events} generated events)"),
            String::new(),
            "This is a demonstration: only the sample relay is crawled, nothing leaves this machine."
                .to_owned(),
            format!("For the real network stop it and run: quipu up {real}"),
        ]);
    }
    let door = if instance.reader_database_url.is_some() { "" } else { " session" };
    lines.extend([
        String::new(),
        "Next: open the console, or ask with SQL:".to_owned(),
        format!(
            "  psql \"$(quipu url{door} --data {data})\" -c 'SELECT kind, events FROM kind_totals ORDER BY 2 DESC'"
        ),
        // What every implementation can do: not all can export.
        format!("  quipu archive status --data {data}     quipu verify --data {data}"),
        "Ctrl-C stops everything.".to_owned(),
    ]);
    lines.iter().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}

/// Arguments of `quipu up` for a real archive: a folder beside that of the sample, on the same ports.
fn for_the_real_network(data: &Path, port_base: Option<u16>) -> String {
    let moved = port_base.map(|base| format!(" --port-base {base}"));
    format!("--data {}{}", data.with_file_name("archive").display(), moved.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_archive_has_a_folder_of_its_own_and_the_same_ports() {
        assert_eq!(for_the_real_network(Path::new("./data"), None), "--data ./archive");
        let moved = for_the_real_network(Path::new("/srv/quipu/sample"), Some(5_700));
        assert_eq!(moved, "--data /srv/quipu/archive --port-base 5700");
    }
}
