//! `[gateway]`: interfaces and the address of the metrics.

use std::{net::SocketAddr, sync::Arc};

use super::{Once, twice};
use crate::config::{
    decode::Located,
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
    if let Some(metrics) = &gateway.metrics {
        check_metrics(metrics, draft, report);
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

/// Reports an address where the metrics can't be found, or where everybody finds them.
fn check_metrics(metrics: &Located<SocketAddr>, draft: &Draft, report: &Report) {
    const PRIVATE: &str =
        "write an address that only the monitoring reaches, or \"127.0.0.1:9461\"";
    let Located { value, at } = metrics;
    if value.port() == 0 {
        report.push(
            Diagnostic::error(at.clone(), "`metrics` has port 0, which nobody could find")
                .help("write a port from 1 to 65535, such as \"127.0.0.1:9461\""),
        );
    }
    if value.ip().is_unspecified() {
        let message = "`metrics` is on every address of the gateway, the public ones among them, and asks nobody for a password";
        report.push(Diagnostic::warning(at.clone(), message).help(PRIVATE));
    }
    let public = draft.ip_sets.iter().find_map(|ip_set| {
        let addresses = ip_set.addresses.iter().flat_map(|list| &list.items);
        let mut mine = addresses.filter(|address| address.value == value.ip());
        Some((ip_set, mine.next()?))
    });
    let Some((ip_set, address)) = public else {
        return;
    };
    let found = if ip_set.port_numbers().contains(&value.port()) {
        let message = format!("{value} is also a service: nobody would reach the metrics there");
        Diagnostic::error(at.clone(), message)
    } else {
        let message = format!(
            "`metrics` is on the public address {}, and asks nobody for a password",
            value.ip()
        );
        Diagnostic::warning(at.clone(), message)
    };
    report.push(
        found
            .related(&address.at, "the public address is here")
            .help(PRIVATE),
    );
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
