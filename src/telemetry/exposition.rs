//! Converts OpenMetrics, which `prometheus-client` writes, to Prometheus' text format 0.0.4, which all
//! scrapers read.
//!
//! The formats differ in four points: OpenMetrics names a counter's family without `_total`, has types that
//! 0.0.4 lacks, has `# UNIT` lines, and ends with `# EOF`.

/// Converts one exposition. Sample lines stay unchanged.
pub(super) fn to_text_0_0_4(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, help)) = help.take().filter(|(described, _)| *described == name) {
                text.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counters_family_is_named_like_its_samples() {
        let openmetrics =
            "# HELP events Events stored.\n# TYPE events counter\nevents_total{kind=\"1\"} 7\n# EOF\n";
        let text =
            "# HELP events_total Events stored.\n# TYPE events_total counter\nevents_total{kind=\"1\"} 7\n";
        assert_eq!(to_text_0_0_4(openmetrics), text);
    }

    #[test]
    fn units_vanish_and_unknown_types_are_untyped() {
        let openmetrics =
            "# HELP a_seconds A.\n# TYPE a_seconds unknown\n# UNIT a_seconds seconds\na_seconds 1\n# EOF\n";
        assert_eq!(
            to_text_0_0_4(openmetrics),
            "# HELP a_seconds A.\n# TYPE a_seconds untyped\na_seconds 1\n"
        );
    }
}
