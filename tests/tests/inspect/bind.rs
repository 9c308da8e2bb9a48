//! What binding needs of the host: settings, which are given back, and a stamp of the listener, which is nobody's connection.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{Lab, deadline::Deadline, gateway::Gateway, lab_test};

use crate::{THREE_DOMAINS, counted, quiet, shared};

const COOKIES: &str = "net.ipv4.tcp_syncookies";
const TIMESTAMPS: &str = "net.ipv4.tcp_timestamps";

fn setting(lab: &Lab, key: &str) -> Result<String> {
    let value = lab.gateway.output("sysctl", &["-n", key])?;
    Ok(value.trim().to_owned())
}

fn set(lab: &Lab, key: &str, value: &str) -> Result<()> {
    lab.gateway
        .output("sysctl", &["-w", &format!("{key}={value}")])?;
    Ok(())
}

fn ensure_settings(lab: &Lab, cookies: &str, timestamps: &str) -> Result<()> {
    let found = (setting(lab, COOKIES)?, setting(lab, TIMESTAMPS)?);
    ensure!(
        found == (cookies.to_owned(), timestamps.to_owned()),
        "{found:?}"
    );
    Ok(())
}

fn binding(gateway: &Gateway<'_>) -> Result<String> {
    let status = gateway.output(&["status"])?;
    let line = status.lines().find(|line| line.starts_with("binding"));
    let line = line.with_context(|| status.clone())?;
    Ok(line["binding".len()..].trim().to_owned())
}

fn ensure_on(gateway: &Gateway<'_>) -> Result<()> {
    let told = binding(gateway)?;
    ensure!(
        told.starts_with("on for") && told.contains("stamped"),
        "{told}: {}",
        gateway.log()?
    );
    let status = gateway.json(&["status"])?;
    let announced = &status["announced"];
    ensure!(
        (&announced["mss_v4"], &announced["mss_v6"]) == (&1460.into(), &1440.into()),
        "{announced}"
    );
    let scale = announced["scale"].as_u64().context("a scale")?;
    ensure!((1..=14).contains(&scale), "{announced}");
    ensure!(status["agent"]["binding"]["off"].is_null(), "{status}");
    let control = gateway.output(&["map", "dump", "CONTROL"])?;
    ensure!(
        control.contains("1460 bytes over IPv4") && control.contains(&format!("scale {scale}")),
        "{control}"
    );
    Ok(())
}

fn ensure_off(gateway: &Gateway<'_>) -> Result<()> {
    let told = binding(gateway)?;
    ensure!(told == "off: no [[ip_set]] has `bind`", "{told}");
    let announced = gateway.json(&["status"])?["announced"].clone();
    ensure!(announced.is_null(), "{announced}");
    Ok(())
}

#[test]
fn settings_are_changed_for_binding_and_given_back_however_the_first_agent_ends() {
    lab_test("inspect-bind-settings", &quiet(), |lab| {
        // As Linux has them, whatever the lab's host has.
        set(lab, COOKIES, "1")?;
        set(lab, TIMESTAMPS, "1")?;
        let mut gateway = Gateway::start(lab, &shared("preserve", "bind = true", THREE_DOMAINS))?;
        ensure_settings(lab, "2", "2")?;
        ensure_on(&gateway)?;
        // It was a cookie of the host's that stamped the listener.
        let sent = lab.gateway.tcp_counters()?.value("TcpExtSyncookiesSent");
        ensure!(sent == 1, "{sent} cookies");
        // The stamp is no client, and nobody's connection.
        ensure!(counted(&gateway, "accepted")? == 0, "{}", gateway.agent()?);
        ensure!(gateway.agent()?["connections"] == 0);
        let sockets = lab.gateway.output("ss", &["-Htan", "state", "all"])?;
        // But for the listener of metrics.
        let mut connections = sockets.lines().filter(|line| !line.starts_with("LISTEN"));
        let left = connections.find(|line| line.contains("127.0.0.1"));
        ensure!(left.is_none(), "{sockets}");

        gateway.kill()?;
        ensure_settings(lab, "2", "2")?;
        let told = binding(&gateway)?;
        ensure!(told.starts_with("on: known names"), "{told}");
        let checked = gateway.output(&["check"])?;
        ensure!(
            checked.contains("net.ipv4.tcp_syncookies is 2"),
            "{checked}"
        );

        gateway.run(&[])?;
        ensure_on(&gateway)?;
        gateway.stop()?;
        ensure_settings(lab, "1", "1")?;
        let checked = gateway.output(&["check"])?;
        ensure!(
            checked.contains("net.ipv4.tcp_timestamps is 1; the agent sets it to 2"),
            "{checked}"
        );
        Ok(())
    });
}

#[test]
fn settings_of_others_stay() {
    lab_test("inspect-bind-others", &quiet(), |lab| {
        set(lab, COOKIES, "2")?;
        set(lab, TIMESTAMPS, "1")?;
        let mut gateway = Gateway::start(lab, &shared("preserve", "bind = true", THREE_DOMAINS))?;
        ensure_on(&gateway)?;
        set(lab, TIMESTAMPS, "0")?;
        gateway.stop()?;
        // The one was so before, the other was changed meanwhile.
        ensure_settings(lab, "2", "0")
    });
}

#[test]
fn what_is_left_in_place_is_given_back_by_detach() {
    lab_test("inspect-bind-leave", &quiet(), |lab| {
        set(lab, COOKIES, "0")?;
        set(lab, TIMESTAMPS, "1")?;
        let mut gateway = Gateway::start(lab, &shared("preserve", "bind = true", THREE_DOMAINS))?;
        gateway.stop()?;
        ensure_settings(lab, "0", "1")?;
        gateway.run(&["--leave"])?;
        ensure_on(&gateway)?;
        gateway.stop()?;
        ensure_settings(lab, "2", "2")?;
        let told = binding(&gateway)?;
        ensure!(told.starts_with("on: known names"), "{told}");
        gateway.output(&["detach"])?;
        ensure_settings(lab, "0", "1")
    });
}

#[test]
fn without_bind_nothing_is_changed() {
    lab_test("inspect-bind-off", &quiet(), |lab| {
        set(lab, COOKIES, "1")?;
        set(lab, TIMESTAMPS, "1")?;
        let tables = |ip_set| shared("preserve", ip_set, THREE_DOMAINS);
        let mut gateway = Gateway::start(lab, &tables("bind = false"))?;
        ensure_off(&gateway)?;
        ensure_settings(lab, "1", "1")?;
        let checked = gateway.output(&["check"])?;
        ensure!(!checked.contains("tcp_syncookies"), "{checked}");

        gateway.configure("", &tables("bind = true"))?;
        gateway.output(&["reload"])?;
        ensure_on(&gateway)?;
        ensure_settings(lab, "2", "2")?;

        gateway.configure("", &tables("hand_off = false"))?;
        gateway.output(&["reload"])?;
        ensure_off(&gateway)?;
        let given_back = || Ok(ensure_settings(lab, "1", "1").ok());
        Deadline::after(Duration::from_secs(20)).poll("settings as before", given_back)?;
        Ok(())
    });
}
