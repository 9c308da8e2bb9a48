//! What the configuration needs of the host's network, found and kept true.

use std::{collections::HashMap, net::IpAddr};

use crate::{
    config::{self, Config},
    datapath::{Activated, DatapathError, Maps, Tables},
    net::{Network, host, vlan_links},
};

use super::AgentError;

/// An interface of the configuration, as the host has it: name and index.
pub(super) type AttachTo = (String, u32);

/// The interfaces of a configuration, fit for forwarding.
pub(super) async fn interfaces(
    network: &Network,
    config: &Config,
) -> Result<Vec<AttachTo>, AgentError> {
    let addresses = || config.ip_sets.iter().flat_map(|set| &set.addresses);
    let mut found = Vec::new();
    for name in &config.gateway.interfaces {
        let interface = network.interface(name).await?;
        // The route lookup in the datapath refuses packets of interfaces that don't forward.
        if addresses().any(IpAddr::is_ipv4) {
            host::require_forwarding(name, host::Family::V4)?;
        }
        if addresses().any(IpAddr::is_ipv6) {
            host::require_forwarding(name, host::Family::V6)?;
        }
        found.push((name.clone(), interface.index));
    }
    Ok(found)
}

/// Makes the configuration the one that the datapath goes by.
pub(super) async fn activate(
    maps: &mut Maps,
    network: &Network,
    config: &Config,
) -> Result<Activated, AgentError> {
    let gateway_mode = |edge: &&config::Edge| edge.source == config::SourceMode::Gateway;
    let mut own = HashMap::new();
    for edge in config.edges.iter().filter(gateway_mode) {
        let address = match network.route_to(edge.address.ip(), None).await {
            Ok(route) => route
                .source
                .ok_or_else(|| "the route there gives no address of the gateway's own".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        own.insert(edge.address.ip(), address);
    }
    let ports = if own.is_empty() {
        (0, 0)
    } else {
        host::owned_ports()?
    };
    let tables = Tables::new(config, ports, |edge| own_address(&own, edge.address.ip()))?;
    // Thousands of system calls: other tasks go on elsewhere.
    Ok(tokio::task::block_in_place(|| tables.switch(maps))?)
}

fn own_address(
    own: &HashMap<IpAddr, Result<IpAddr, String>>,
    edge: IpAddr,
) -> Result<IpAddr, String> {
    own.get(&edge)
        .cloned()
        .unwrap_or_else(|| Err("its route was not looked up".to_owned()))
}

/// Learns the VLAN interfaces that routes may name: frames for them leave tagged by what carries them. Returns every interface that frames can
/// leave by.
pub(super) async fn learn_links(
    maps: &mut Maps,
    network: &Network,
    attached: &[AttachTo],
) -> Result<Vec<u32>, AgentError> {
    let mut indices: Vec<_> = attached.iter().map(|(_, index)| *index).collect();
    for (index, link) in vlan_links(&network.interfaces().await?, &indices.clone()) {
        maps.links
            .insert(index, link, 0)
            .map_err(|e| DatapathError::map("LINKS", e))?;
        indices.push(index);
    }
    Ok(indices)
}

/// The same, and forgets those that are gone.
pub(super) async fn refresh_links(
    maps: &mut Maps,
    network: &Network,
    attached: &[AttachTo],
) -> Result<Vec<u32>, AgentError> {
    let leave_by = learn_links(maps, network, attached).await?;
    let known = maps.links.keys().filter_map(Result::ok);
    let gone: Vec<_> = known.filter(|index| !leave_by.contains(index)).collect();
    for index in gone {
        maps.links
            .remove(&index)
            .map_err(|e| DatapathError::map("LINKS", e))?;
    }
    Ok(leave_by)
}
