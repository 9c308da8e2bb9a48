//! `[gateway]`: interfaces and the address of the metrics.

use std::sync::Arc;

use super::{Once, twice};
use crate::config::{
    diagnostics::{Diagnostic, Report},
    location::{Location, Source},
    tables::{Draft, GatewayDraft},
    wording::quoted,
};

/// `IFNAMSIZ` of linux/if.h without its terminating zero.
const LONGEST_INTERFACE: usize = 15;

pub(super) fn missing(main: &Arc<Source>, report: &Report) {
    report.push(
        Diagnostic::error(
            Location::whole_file(main),
            "the configuration has no [gateway] table",
        )
        .help("write `[gateway]` and, below it, `interfaces = [\"wan0\", \"lan0\"]`"),
    );
}

pub(super) fn check(gateway: &GatewayDraft, draft: &Draft, report: &Report) {
    let mut once = Once::new();
    for interface in gateway.interfaces.iter().flat_map(|list| &list.items) {
        let name = interface.value.as_str();
        if let Some(why) = unusable_interface(name) {
            report.push(
                Diagnostic::error(
                    interface.at.clone(),
                    format!("{} cannot be an interface: {why}", quoted(name)),
                )
                .help("write the names that `ip link` shows"),
            );
        }
        if let Some(first) = once.again(name, &interface.at) {
            let message = format!("the interface {} is listed twice", quoted(name));
            report.push(twice(
                &interface.at,
                first,
                message,
                "leave one of them out",
            ));
        }
    }
    if let Some(metrics) = &gateway.metrics
        && metrics.value.port() == 0
    {
        report.push(
            Diagnostic::error(
                metrics.at.clone(),
                "`metrics` has port 0, which nobody could find",
            )
            .help("write a port from 1 to 65535, such as \"127.0.0.1:9461\""),
        );
    }
    if draft.ip_sets.is_empty()
        && !draft.incomplete
        && let Some(interfaces) = &gateway.interfaces
    {
        report.push(
            Diagnostic::warning(
                interfaces.at.clone(),
                "there is no [[ip_set]], so that every packet is left alone",
            )
            .help("write an [[ip_set]] with the public addresses"),
        );
    }
}

/// The rules of `dev_valid_name` in the kernel's net/core/dev.c.
fn unusable_interface(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > LONGEST_INTERFACE {
        Some("it is longer than 15 bytes")
    } else if name == "."
        || name == ".."
        || name.contains(|c: char| "/:\0".contains(c) || c.is_ascii_whitespace())
    {
        Some("it has a character that interface names may not have")
    } else {
        None
    }
}
