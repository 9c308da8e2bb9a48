//! Services: what happens to connections to each public address and port.

use std::net::IpAddr;

use serde::Serialize;
use sni_common::contract::{Edge, EdgeState, Mode, Pool, SERVICE_BIND, Service, ServiceKey};

use crate::cli::{
    read::Names,
    table::{Column, Row},
};

/// A line of `service ls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct ServiceLine {
    address: IpAddr,
    port: u16,
    protocol: &'static str,
    ip_set: String,
    mode: String,
    /// The datapath may bind connections whose server name it knows.
    bind: bool,
    /// Where connections go; for an inspected service, those without a known server name.
    pool: Option<String>,
    edges: Vec<Member>,
}

/// An Edge of a service's pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Member {
    name: String,
    state: String,
    weight: u16,
}

/// The services of the active generation, by address and port.
pub(in crate::cli) fn lines(
    services: &[(ServiceKey, Service)],
    pools: &[(u32, Pool)],
    edges: &[(u16, Edge)],
    names: &Names,
) -> Vec<ServiceLine> {
    let active = services.iter().filter(|(key, service)| {
        key.generation == names.generation && service.mode != Mode::Vip as u8
    });
    let mut lines: Vec<_> = active
        .map(|(key, service)| line(key, service, pools, edges, names))
        .collect();
    lines.sort_by_key(|line| (line.address, line.port));
    lines
}

fn line(
    key: &ServiceKey,
    service: &Service,
    pools: &[(u32, Pool)],
    edges: &[(u16, Edge)],
    names: &Names,
) -> ServiceLine {
    let pool = pools.iter().find(|(number, _)| *number == service.pool);
    ServiceLine {
        address: key.address.into(),
        port: u16::from_be(key.port_be),
        protocol: "tcp",
        ip_set: names.ip_set(service.ip_set),
        mode: mode(service),
        bind: binds(service),
        pool: pool.map(|(number, _)| names.pool(*number)),
        edges: pool.map_or_else(Vec::new, |(_, pool)| members(pool, edges, names)),
    }
}

/// What decides about connections.
pub(in crate::cli) fn mode(service: &Service) -> String {
    Mode::try_from(service.mode).map_or_else(|e| e.to_string(), |mode| mode.to_string())
}

/// Whether the datapath may bind.
pub(in crate::cli) fn binds(service: &Service) -> bool {
    service.flags & SERVICE_BIND != 0
}

/// Both in a table.
pub(in crate::cli) fn mode_cell(mode: &str, bind: bool) -> String {
    if bind {
        format!("{mode}, bind")
    } else {
        mode.to_owned()
    }
}

fn members(pool: &Pool, edges: &[(u16, Edge)], names: &Names) -> Vec<Member> {
    let members = pool.members.iter().take(pool.count as usize);
    members
        .map(|member| Member {
            name: names.edge(member.edge),
            state: edges
                .iter()
                .find(|(slot, _)| *slot == member.edge)
                .map_or_else(|| "missing".into(), |(_, edge)| super::edge::state(edge)),
            weight: member.weight,
        })
        .collect()
}

impl Row for ServiceLine {
    const COLUMNS: &'static [Column] = &[
        Column::left("ADDRESS"),
        Column::right("PORT"),
        Column::wrapping("IP SET"),
        Column::left("MODE"),
        Column::wrapping("POOL"),
        Column::wrapping("EDGES"),
    ];

    fn cells(&self) -> Vec<String> {
        let edges: Vec<_> = self
            .edges
            .iter()
            .map(|edge| {
                if edge.state == EdgeState::Up.name() {
                    edge.name.clone()
                } else {
                    format!("{} ({})", edge.name, edge.state)
                }
            })
            .collect();
        vec![
            self.address.to_string(),
            self.port.to_string(),
            self.ip_set.clone(),
            mode_cell(&self.mode, self.bind),
            self.pool.clone().unwrap_or_else(|| "-".into()),
            if edges.is_empty() {
                "-".into()
            } else {
                edges.join(", ")
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::made_up;
    use sni_common::{
        Address,
        contract::{LabelKind, PoolMember},
    };

    #[test]
    fn services_of_the_active_generation_with_the_state_of_their_edges() {
        let names = made_up::names(&[
            (LabelKind::Edge, 0, 3, "edge-a"),
            (LabelKind::Edge, 0, 4, "edge-b"),
            (LabelKind::Pool, 7, 2, "edges"),
            (LabelKind::IpSet, 0, 1, "one"),
        ]);
        let mut down = made_up::edge("203.0.113.140:5061");
        down.state = EdgeState::Down as u8;
        let edges = [(3, made_up::edge("203.0.113.10:5061")), (4, down)];
        let mut pool = Pool {
            count: 2,
            family: 4,
            ..Pool::default()
        };
        pool.members[0] = PoolMember { edge: 3, weight: 1 };
        pool.members[1] = PoolMember { edge: 4, weight: 1 };

        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        let service = |mode: Mode, pool| Service {
            mode: mode as u8,
            pool,
            ip_set: 1,
            ..Service::default()
        };
        let vip = address("198.51.100.10");
        let services = [
            (
                ServiceKey::tcp(7, address("2001:db8:1::20"), 443_u16.to_be()),
                service(Mode::Inspect, u32::MAX),
            ),
            (
                ServiceKey::tcp(7, address("2001:db8:1::20"), 5061_u16.to_be()),
                Service {
                    flags: SERVICE_BIND,
                    ..service(Mode::Inspect, 2)
                },
            ),
            (
                ServiceKey::tcp(7, vip, 5061_u16.to_be()),
                service(Mode::Steer, 2),
            ),
            (ServiceKey::vip(7, vip), service(Mode::Vip, 2)),
            (
                ServiceKey::tcp(6, vip, 5061_u16.to_be()),
                service(Mode::Steer, 2),
            ),
        ];
        let cells: Vec<_> = lines(&services, &[(2, pool)], &edges, &names)
            .iter()
            .map(Row::cells)
            .collect();
        assert_eq!(
            cells,
            [
                [
                    "198.51.100.10",
                    "5061",
                    "one",
                    "steer",
                    "edges",
                    "edge-a, edge-b (down)"
                ],
                ["2001:db8:1::20", "443", "one", "inspect", "-", "-"],
                [
                    "2001:db8:1::20",
                    "5061",
                    "one",
                    "inspect, bind",
                    "edges",
                    "edge-a, edge-b (down)"
                ],
            ]
        );
    }
}
