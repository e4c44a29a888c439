//! Tries every address before anything starts, so that a taken port is reported at once and with all others.
//!
//! What a killed run left on the ports of the private servers is no reason to refuse them: then only
//! [`crate::store::embedded`] tries these ports, after it has stopped what was left.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Result, bail};

use super::registry;
use crate::config::{DatabaseEnv, Settings};
use crate::room::{Port, Ports, ServiceName};
use crate::store::embedded::has_pid_files;

/// The setting with the address of the ops listener, which belongs to no service.
pub(super) const OPS_SETTING: &str = "http.ops_address";

/// An address that is going to be listened on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    port: Port,
    /// The setting that holds the address; `None` when only `--port-base` moves it.
    setting: Option<&'static str>,
    address: SocketAddr,
}

/// What `quipu up` listens on besides its services: the private servers and the sample relay.
pub(super) fn wanted_by_instance(
    database: &DatabaseEnv,
    data: &Path,
    ports: Ports,
    with_sample: bool,
) -> impl Iterator<Item = Wanted> {
    let is_clean = !has_pid_files(data);
    let postgres = (database.write.is_none() && is_clean).then_some(Port::Postgres);
    let has_pooler = database.write.is_none() || database.is_administrators();
    let pooler = (has_pooler && is_clean).then_some(Port::Pgbouncer);
    let sample = with_sample.then_some(Port::SampleRelay);
    let all = [postgres, pooler, sample].into_iter().flatten();
    all.map(move |port| Wanted { port, setting: None, address: ports.local(port) })
}

/// The ops listener and the listeners of `services`.
pub(super) fn wanted(settings: &Settings, services: &[ServiceName]) -> Vec<Wanted> {
    let ops = Wanted { port: Port::Ops, setting: Some(OPS_SETTING), address: settings.http.ops_address };
    let listeners = services.iter().flat_map(|service| registry::service(*service).listeners);
    let listeners = listeners.map(|listener| Wanted {
        port: listener.port,
        setting: Some(listener.setting),
        address: (listener.address)(settings),
    });
    std::iter::once(ops).chain(listeners).collect()
}

/// Listens on all addresses for a moment.
///
/// # Errors
/// Every address that cannot be listened on, or that two listeners have, with its setting and what to do.
/// `can_move` says whether the command has `--port-base`.
pub(super) fn try_all(wanted: &[Wanted], can_move: bool) -> Result<()> {
    // All are held until the last one is tried: two listeners with one address are found, too.
    let mut held = Vec::new();
    let mut refused = Vec::new();
    let mut named = false;
    for Wanted { port, setting, address } in wanted {
        match TcpListener::bind(address) {
            Ok(listener) => held.push(listener),
            Err(error) => {
                named |= setting.is_some();
                let setting = setting.map_or_else(String::new, |setting| format!(" (`{setting}`)"));
                refused.push((address, format!("\n  {address} for {}{setting}: {error}", port.as_str())));
            }
        }
    }
    refused.sort();
    if refused.is_empty() {
        return Ok(());
    }
    let mut remedies = vec!["stop the program that listens there"];
    if named {
        remedies.push("set another address with `--set SETTING=HOST:PORT`");
    }
    if can_move {
        remedies.push("move all listeners with `--port-base N`");
    }
    let refused: String = refused.into_iter().map(|(_, line)| line).collect();
    bail!("cannot listen on{refused}\n{}", remedies.join(", or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: Port, setting: Option<&'static str>, address: SocketAddr) -> Wanted {
        Wanted { port, setting, address }
    }

    #[test]
    fn every_taken_address_is_named_with_its_setting_and_the_remedies() {
        let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [one, two] = taken.each_ref().map(|listener| listener.local_addr().unwrap());
        let free = "127.0.0.1:0".parse().unwrap();
        let all = [
            at(Port::Ops, Some(OPS_SETTING), one),
            at(Port::Console, Some("http.console_address"), free),
            at(Port::SampleRelay, None, two),
        ];
        let error = try_all(&all, true).unwrap_err().to_string();
        assert!(error.contains(&format!("\n  {one} for ops (`http.ops_address`): ")), "{error}");
        assert!(error.contains(&format!("\n  {two} for sample-relay: ")), "{error}");
        assert!(!error.contains("console"), "{error}");
        let places = [one.min(two), one.max(two)].map(|address| error.find(&format!("\n  {address} ")));
        assert!(places[0] < places[1], "in order: {error}");
        assert!(error.contains("--set SETTING=HOST:PORT") && error.contains("--port-base N"), "{error}");
        assert!(!try_all(&all, false).unwrap_err().to_string().contains("--port-base"));
        drop(taken);
        try_all(&all, true).unwrap();
    }

    #[test]
    fn two_listeners_with_one_address_are_found() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let all = [Port::Ops, Port::Console].map(|port| at(port, None, address));
        let error = try_all(&all, true).unwrap_err().to_string();
        assert!(error.contains("for console: ") && !error.contains("for ops"), "{error}");
    }

    #[test]
    fn the_addresses_are_those_of_ops_and_of_the_services() {
        let settings = Settings::default();
        let all = wanted(&settings, &[ServiceName::Ticker, ServiceName::Messages]);
        let ports: Vec<u16> = all.iter().map(|wanted| wanted.address.port()).collect();
        assert_eq!(ports, [4701, 4705, 4706]);
    }

    #[test]
    fn the_ports_of_private_servers_are_tried_unless_a_killed_run_may_hold_them() {
        let folder = tempfile::tempdir().unwrap();
        let database = DatabaseEnv::default();
        let ports = |with_sample| -> Vec<u16> {
            let all = wanted_by_instance(&database, folder.path(), Ports::DEFAULT, with_sample);
            all.map(|wanted| wanted.address.port()).collect()
        };
        assert_eq!(ports(false), [4702, 4703]);
        assert_eq!(ports(true), [4702, 4703, 4704]);
        std::fs::create_dir(folder.path().join("postgres")).unwrap();
        std::fs::write(folder.path().join("postgres/postmaster.pid"), "1").unwrap();
        assert_eq!(ports(true), [4704]);
    }
}
