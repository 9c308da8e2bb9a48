//! How large segments may be.

use std::cmp::min;

/// Without options.
const HEADERS_V4: u32 = 20 + 20;
const HEADERS_V6: u32 = 40 + 20;

/// What clients are told of their segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segments {
    /// What the listener announces at most: what the narrowest way to an Edge carries, where clients could be told more by their own route; else 0. It
    /// has room for an IPv6 header.
    pub(super) limit: u32,
    /// What the listener announces where the way to the client is the narrowest one that there is. Over IPv4, and over IPv6.
    pub(super) announced: [u16; 2],
}

impl Segments {
    /// By the MTUs of the ways to Edges, and of the interfaces that clients may come by; none without an interface.
    pub(super) fn new(
        to_edges: impl Iterator<Item = u32>,
        attached: impl Iterator<Item = u32> + Clone,
    ) -> Option<Self> {
        let narrowest_edge = to_edges.min().unwrap_or(u32::MAX);
        let (narrowest, widest) = (attached.clone().min()?, attached.max()?);
        let limit = if narrowest_edge < widest {
            narrowest_edge.saturating_sub(HEADERS_V6)
        } else {
            0
        };
        // As the kernel has it, TCP_MAXSEG bounds both families alike (tcp_mss_clamp of include/linux/tcp.h).
        let announced = [HEADERS_V4, HEADERS_V6].map(|headers| {
            let by_route = narrowest.saturating_sub(headers);
            let size = if limit == 0 {
                by_route
            } else {
                min(limit, by_route)
            };
            u16::try_from(size).unwrap_or(u16::MAX)
        });
        Some(Self { limit, announced })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(to_edges: &[u32], attached: &[u32]) -> Option<(u32, [u16; 2])> {
        let found = Segments::new(to_edges.iter().copied(), attached.iter().copied());
        found.map(|found| (found.limit, found.announced))
    }

    #[test]
    fn equal_ways_need_no_limit() {
        assert_eq!(segments(&[1500], &[1500, 1500]), Some((0, [1460, 1440])));
        // Nor does a client on the narrower side.
        assert_eq!(segments(&[1500], &[1280, 1500]), Some((0, [1240, 1220])));
        assert_eq!(segments(&[], &[1500]), Some((0, [1460, 1440])));
    }

    #[test]
    fn a_narrow_way_to_an_edge_bounds_both_families() {
        let expected = Some((1340, [1340, 1340]));
        assert_eq!(
            segments(&[1500, 1400], &[1500, 1400]),
            Some((1340, [1340, 1340]))
        );
        assert_eq!(segments(&[1400], &[9000, 1500]), expected);
    }

    #[test]
    fn odd_ways() {
        assert_eq!(segments(&[1500], &[]), None);
        assert_eq!(segments(&[65_536], &[65_536]), Some((0, [65_496, 65_476])));
        assert_eq!(segments(&[], &[100_000]), Some((0, [u16::MAX, u16::MAX])));
        assert_eq!(segments(&[10], &[20]), Some((0, [0, 0])));
    }
}
