//! Dashboards and alerts: what is shipped below `monitoring/` is checked as it is, and runs against a real
//! Quipu, a real Prometheus and a real Alertmanager.

mod dashboards;
mod faults;
mod files;
mod kit;
mod panels;
mod schema;
