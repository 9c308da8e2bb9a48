//! The lines of connections that the datapath has carried, from their last state in the flow table.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use sni_common::contract::{LabelKind, Way};

use super::{ConnectionLog, Line};
use crate::{
    datapath::{Maps, RemovedFlow, endpoint},
    proxy::Routing,
};

/// Flows that a sweep has removed, as many as may be told of.
#[derive(Debug)]
pub(crate) struct RemovedFlows<'a> {
    log: &'a ConnectionLog,
    now_ns: u64,
    /// With the number of lines left unsaid before each.
    flows: Vec<(RemovedFlow, u64)>,
}

impl<'a> RemovedFlows<'a> {
    /// None yet, in a sweep at `now_ns`.
    pub(crate) fn new(log: &'a ConnectionLog, now_ns: u64) -> Self {
        Self {
            log,
            now_ns,
            flows: Vec::new(),
        }
    }

    /// Notes one.
    pub(crate) fn add(&mut self, flow: RemovedFlow) {
        if let Some(unsaid) = self.log.may_say(self.now_ns) {
            self.flows.push((flow, unsaid));
        }
    }

    /// Writes their lines. Names that are configured no longer are told by their numbers.
    pub(crate) fn say(&self, maps: &Maps, routing: &Routing) {
        let numbers = self.flows.iter().map(|(flow, _)| flow.either().route);
        let numbers: HashSet<u64> = numbers.filter(|number| *number != 0).collect();
        let names = if numbers.is_empty() {
            HashMap::new()
        } else {
            routing.names_of(&numbers)
        };
        for (flow, unsaid) in &self.flows {
            let entry = flow.either();
            let label = |kind, number: u32| {
                let label = maps.label(kind, 0, number);
                label.unwrap_or_else(|| format!("#{number}"))
            };
            let server_name = (entry.route != 0).then(|| {
                let name = names.get(&entry.route).cloned();
                name.unwrap_or_else(|| format!("#{:016x}", entry.route))
            });
            let ip_set = label(LabelKind::IpSet, entry.ip_set);
            let edge = label(LabelKind::Edge, entry.edge.into());
            let line = line(flow, server_name.as_deref(), &ip_set, &edge, *unsaid);
            line.ended();
        }
    }
}

fn line<'a>(
    flow: &RemovedFlow,
    server_name: Option<&'a str>,
    ip_set: &'a str,
    edge: &'a str,
    unsaid: u64,
) -> Line<'a> {
    let key = &flow.client_key;
    let entry = flow.either();
    let last_seen_ns = flow.to_edge.last_seen_ns.max(flow.to_client.last_seen_ns);
    Line {
        client: endpoint(key.source, key.source_port_be),
        address: endpoint(key.destination, key.destination_port_be),
        server_name,
        ip_set: Some(ip_set),
        edge: Some(edge),
        way: Way::try_from(entry.way).map_or("unknown", Way::name),
        result: flow.why.name(),
        to_edge: flow.to_edge.bytes,
        to_client: flow.to_client.bytes,
        lasted: Duration::from_nanos(last_seen_ns.saturating_sub(entry.opened_ns)),
        unsaid,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use sni_common::{
        contract::{Direction, Flow, FlowKey},
        expiry::Ended,
    };

    use super::*;

    #[test]
    fn a_flow_is_told_of_by_both_entries() {
        let key = FlowKey {
            source: Ipv4Addr::new(192, 0, 2, 1).into(),
            destination: Ipv4Addr::new(198, 51, 100, 20).into(),
            source_port_be: 40000_u16.to_be(),
            destination_port_be: 5061_u16.to_be(),
        };
        let to_edge = Flow {
            way: Way::Bound as u8,
            bytes: 10,
            opened_ns: 1_000_000_000,
            last_seen_ns: 2_000_000_000,
            ..Flow::default()
        };
        let to_client = Flow {
            direction: Direction::ToClient as u8,
            bytes: 20,
            last_seen_ns: 4_500_000_000,
            ..to_edge
        };
        let flow = RemovedFlow {
            client_key: key,
            to_edge,
            to_client,
            why: Ended::Reset,
        };
        let told = line(&flow, Some("sip.contoso.example"), "shared", "edge-a", 3);
        assert_eq!(told.client.to_string(), "192.0.2.1:40000");
        assert_eq!(told.address.to_string(), "198.51.100.20:5061");
        assert_eq!((told.way, told.result), ("bound", "reset"));
        assert_eq!((told.to_edge, told.to_client), (10, 20));
        assert_eq!(told.lasted, Duration::from_millis(3500));
        // Half a flow has no less to tell.
        let half = RemovedFlow {
            to_edge: Flow::default(),
            ..flow
        };
        let told = line(&half, None, "shared", "edge-a", 0);
        assert_eq!((told.way, told.to_client), ("bound", 20));
        assert_eq!(told.lasted, Duration::from_millis(3500));
    }
}
