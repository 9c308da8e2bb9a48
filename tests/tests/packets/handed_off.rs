//! Segments of handed-off flows, and ICMP errors about them: what one side sends is what the other would have got from a real peer.

use sni_common::contract::{Counter, DropReason};
use sni_common::translate::options::{NO_SACK, NO_TIMESTAMPS};
use snigate_tests::packets::frame::{PSH, SYN, Tcp};
use snigate_tests::packets::plan::{Family, SYN_OPTIONS};
use snigate_tests::packets::{Fate, Icmp, Port, Row, Step, packet_table};

use crate::checks::states;
use crate::spliced::{
    Side, Spliced, client_sack, client_timestamps, edge_sack, edge_timestamps, timestamps,
};

#[test]
fn segments_are_translated() {
    let rows = Family::BOTH.into_iter().flat_map(|family| {
        let flow = Spliced::new(family);
        let mut rows = vec![
            data(flow),
            tagged(flow),
            wrong_checksum(flow),
            urgent(flow),
            usual_timestamps(flow),
            timestamps_elsewhere(flow),
            no_ack(flow),
            timestamps_left_out(flow),
            uninvited_options(flow),
            windows(flow),
            syn(flow),
            malformed(flow),
            data_offset(flow),
        ];
        rows.extend((1..=4).map(|blocks| sack(flow, blocks)));
        rows
    });
    packet_table("handed-off segments", rows.collect());
}

fn data(flow: Spliced) -> Row {
    let with = |bytes: &'static [u8]| move |tcp: Tcp, _| tcp.flags(PSH | 0x10).data(bytes);
    flow.row("data each way, without options")
        .step(flow.up(0, 0, with(b"odd")))
        .step(flow.down(0, 3, with(b"even")))
        // Beyond the wrap of the numbers on either leg.
        .step(flow.up(3, 4, with(&[7; 1000])))
        .step(flow.down(4, 1003, with(&[9; 1001])))
        // An old one.
        .step(flow.up(-100, -50, with(b"again")).leaves(states(0, 0)))
}

fn tagged(flow: Spliced) -> Row {
    let sent = |tcp: Tcp, side: Side| {
        let options = [vec![1, 1], client_timestamps(side, 5, 6)].concat();
        let tcp = tcp.options(&options).data(b"tagged");
        match side {
            Side::Sender => tcp.tags(&[(0x88a8, 7), (0x8100, 8)]),
            Side::Receiver => tcp,
        }
    };
    flow.row("behind two VLAN tags").step(flow.up(0, 0, sent))
}

/// Damage stays visible to the receiver.
fn wrong_checksum(flow: Spliced) -> Row {
    flow.row("a wrong checksum stays as wrong as it was")
        .step(flow.up(0, 0, |tcp, _| tcp.data(b"damaged").checksum_error(0x1111)))
}

fn urgent(flow: Spliced) -> Row {
    // Urgent flag and pointer, which counts from the sequence number (RFC 9293, 3.8.5); set by hand, with the sum.
    let poke = |mut frame: Vec<u8>| {
        let tcp = frame.len() - 20 - 4;
        frame[tcp + 13] |= 0x20;
        frame[tcp + 19] = 3;
        let sum = u16::from_be_bytes([frame[tcp + 16], frame[tcp + 17]]);
        let (less, borrow) = sum.overflowing_sub(0x20 + 3);
        let sum = less - u16::from(borrow);
        frame[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let sent = flow.client(0, 0).data(b"now!");
    let got = flow.at_edge(&sent, 0, 0);
    flow.row("urgent data").step(
        Step::new(
            Port::Wan0,
            poke(sent.frame()),
            Fate::Forwarded(poke(got.frame())),
        )
        .counts(Counter::HandedOff),
    )
}

fn usual_timestamps(flow: Spliced) -> Row {
    let client = |tcp: Tcp, side| {
        tcp.options(
            &[
                vec![1, 1],
                client_timestamps(side, 0x8000_0000, 0xffff_fff0),
            ]
            .concat(),
        )
    };
    let edge =
        |tcp: Tcp, side| tcp.options(&[vec![1, 1], edge_timestamps(side, 0xf000_0001, 3)].concat());
    flow.row("timestamps where they usually are")
        .step(flow.up(0, 0, client))
        .step(flow.up(0, 0, move |tcp, side| client(tcp, side).data(b"and data")))
        .step(flow.down(0, 8, edge))
        .step(flow.down(0, 8, move |tcp, side| edge(tcp, side).data(b"odd")))
}

fn timestamps_elsewhere(flow: Spliced) -> Row {
    let steps = [(1, 1), (0, 2), (3, 3), (0, 6), (5, 13), (30, 0)].map(|(before, behind)| {
        flow.up(0, 0, move |tcp, side| {
            let options = client_timestamps(side, 0x0102_0304, 0xfffe_fdfc);
            tcp.options(&[vec![1; before], options, vec![1; behind]].concat())
        })
    });
    let unknown = flow.down(0, 0, |tcp, side| {
        let options = edge_timestamps(side, 1, 2);
        // An option of the time (RFC 5482), one that nobody knows, and the list's end before something that looks like timestamps.
        let before = [vec![28, 4, 0x80, 60], vec![200, 3, 8]].concat();
        let behind = [vec![0], timestamps(1, 2)].concat();
        tcp.options(&[before, options, behind].concat())
    });
    let two = flow.up(0, 0, |tcp, side| {
        let options = client_timestamps(side, 9, 10);
        tcp.options(&[options.clone(), options].concat())
    });
    flow.row("timestamps at any offset")
        .steps(steps)
        .step(unknown)
        .step(two)
}

/// Without ACK neither the acknowledgement nor the echo means anything.
fn no_ack(flow: Spliced) -> Row {
    let step = |before: &'static [u8], behind: &'static [u8]| {
        flow.up(0, 0, move |mut tcp, side| {
            let value = client_timestamps(side, 4, 0)[2..6].to_vec();
            (tcp.ack, tcp.flags) = (0x0bad_cafe, PSH);
            tcp.options(&[before, &[8, 10], &value[..], &[0, 0, 0, 9], behind].concat())
        })
    };
    flow.row("a segment without ACK")
        .step(step(&[1, 1], &[]))
        .step(step(&[1], &[1]))
}

fn timestamps_left_out(flow: Spliced) -> Row {
    let flow = flow.options(NO_TIMESTAMPS);
    let step = |before: usize, behind: usize| {
        flow.up(0, 0, move |tcp, side| {
            let options = side.of(timestamps(4, 5), vec![1; 10]);
            tcp.options(&[vec![1; before], options, vec![1; behind]].concat())
                .data(b"data")
        })
    };
    flow.row("timestamps are left out")
        .step(step(2, 0))
        .step(step(1, 1))
        .step(step(0, 2))
        .step(flow.down(0, 0, |tcp, side| {
            let options = side.of(timestamps(4, 5), vec![1; 10]);
            let sack = edge_sack(side, &[(10, 20)]);
            tcp.options(&[vec![1, 1], options, vec![1, 1], sack].concat())
        }))
}

fn uninvited_options(flow: Spliced) -> Row {
    let flow = flow.options(NO_TIMESTAMPS | NO_SACK);
    let sack = flow.up(0, 0, |tcp, side| {
        let options = side.of(client_sack(side, &[(1, 2), (3, 4)]), vec![1; 18]);
        tcp.options(&[vec![1, 1], options].concat())
    });
    // No receiver takes it for blocks, but what is left of it would be read as options.
    let long = flow.down(0, 0, |tcp, side| {
        tcp.options(&side.of([vec![5, 40], vec![8; 38]].concat(), vec![1; 40]))
    });
    flow.row("SACK is left out").step(sack).step(long)
}

fn sack(flow: Spliced, count: usize) -> Row {
    // The first repeats what was acknowledged (RFC 2883).
    let blocks = [
        (-30, -20),
        (10, 20),
        (0x1000, 0x2000),
        (0x0010_0000, 0x0010_0001),
    ];
    let blocks = blocks[..count].to_vec();
    let with_timestamps = count < 4;
    let also = blocks.clone();
    let client = move |tcp: Tcp, side| {
        let mut options = vec![1, 1];
        if with_timestamps {
            options.extend(client_timestamps(side, 70, 80));
            options.extend([1, 1]);
        }
        tcp.options(&[options, client_sack(side, &also)].concat())
    };
    let edge = move |tcp: Tcp, side| {
        let mut options = edge_sack(side, &blocks);
        if with_timestamps {
            options.extend(edge_timestamps(side, 70, 80));
        } else {
            options.push(1);
            options.push(1);
        }
        options.resize(options.len().next_multiple_of(4), 0);
        tcp.options(&options)
    };
    flow.row(&format!("SACK with {count} blocks"))
        .step(flow.up(0, 0, client))
        .step(flow.down(0, 0, edge))
}

fn windows(flow: Spliced) -> Row {
    let flow = flow.scales((7, 2), (0, 10));
    let window = |sent, got| {
        move |tcp: Tcp, side: Side| Tcp {
            window: side.of(sent, got),
            ..tcp
        }
    };
    flow.row("windows in other units, never more than was promised")
        // 7 to 10: an eighth, rounded down.
        .step(flow.up(0, 0, window(0x1000, 0x200)))
        .step(flow.up(0, 0, window(7, 0)))
        .step(flow.up(0, 0, window(15, 1)))
        .step(flow.up(0, 0, window(0xffff, 0x1fff)))
        .step(flow.up(0, 0, window(0, 0)))
        // 0 to 2: a quarter.
        .step(flow.down(0, 0, window(0xffff, 0x3fff)))
        .step(flow.down(0, 0, window(3, 0)))
        .steps({
            let other = Spliced::new(flow.family).scales((14, 0), (1, 0));
            let first = other.up(0, 0, window(0xffff, 0xffff));
            [
                first.after_change(move |scene| other.install(scene)),
                other.up(0, 0, window(4, 0xffff)),
                other.up(0, 0, window(3, 0xc000)),
                other.down(0, 0, window(0x7fff, 0xfffe)),
                other.down(0, 0, window(0x8000, 0xffff)),
            ]
        })
}

/// Its receiver challenges it (RFC 5961, 4). The window of a SYN is never scaled (RFC 7323, 2.2).
fn syn(flow: Spliced) -> Row {
    let flow = flow.scales((0, 0), (0, 7));
    let step = flow.up(12345, 0, |mut tcp, side| {
        (tcp.ack, tcp.flags, tcp.window) = (0, SYN, 0xfaf0);
        let mut options = SYN_OPTIONS;
        let value = client_timestamps(side, 9, 0)[2..6].to_vec();
        options[8..12].copy_from_slice(&value);
        tcp.options(&options)
    });
    flow.row("a SYN in the middle")
        .step(step.tells(&[]).leaves(states(0, 0)))
}

/// What makes no option ends the list; before it everything is translated, behind it nothing.
fn malformed(flow: Spliced) -> Row {
    let broken: [&[u8]; 5] = [&[8, 0], &[5, 1], &[8, 11], &[2, 255], &[0, 0]];
    let steps = broken.map(|broken| {
        flow.up(0, 0, move |tcp, side| {
            let before = client_timestamps(side, 11, 12);
            let mut options = [&before, broken, &timestamps(11, 12)[..]].concat();
            // The area ends within what looks like timestamps.
            options.truncate(20);
            tcp.options(&options)
        })
    });
    let cut = flow.down(0, 0, |tcp, _| tcp.options(&[1, 1, 1, 8]));
    let overrun = flow.down(0, 0, |tcp, _| tcp.options(&[1, 1, 8, 10, 0, 0, 0, 1]));
    flow.row("option areas that make no sense")
        .steps(steps)
        .step(cut)
        .step(overrun)
}

fn data_offset(flow: Spliced) -> Row {
    let lies = [0x00, 0x10, 0x40, 0x80, 0xf0].map(|offset| {
        let packet = flow.client(0, 0).data(b"seven..");
        let mut frame = packet.frame();
        let at = frame.len() - 7 - 20 + 12;
        frame[at] = offset;
        Step::new(Port::Wan0, frame, Fate::Dropped(DropReason::BadDataOffset))
    });
    flow.row("a data offset that lies").steps(lies)
}

#[test]
fn errors_find_what_their_receiver_sent() {
    let rows = Family::BOTH.into_iter().flat_map(|family| {
        [8, 12, 18, 20, 40].map(|quoted| errors(Spliced::new(family), family, quoted))
    });
    packet_table("errors about handed-off flows", rows.collect());
}

/// Packet too big, from either side. The sequence number is the sender's again; what lies behind it nobody asks for.
fn errors(flow: Spliced, family: Family, quoted: usize) -> Row {
    let path = flow.path;
    let kind = match family {
        Family::V4 => (3, 4),
        Family::V6 => (2, 0),
    };
    let error = |port: Port, from, to, body| Icmp {
        link: port.arriving(),
        source: from,
        destination: to,
        hops: 61,
        kind,
        rest: [0, 0, 5, 0],
        body,
    };
    let timestamps = |tcp: Tcp| tcp.options(&[vec![1, 1], timestamps(1, 2)].concat());

    let sent = timestamps(flow.client(10, 20).data(&[7; 40]));
    let seen = flow.at_edge(&sent, 10, 20).hops(1);
    let told = Tcp {
        source: path.client,
        destination: path.service,
        seq: sent.seq,
        ..seen.clone()
    };
    let to_client = error(
        path.lan,
        path.edge.ip(),
        path.source.ip(),
        seen.quote(quoted),
    );
    let client_gets = to_client.forwarded(
        Port::Wan0.leaving(),
        path.service.ip(),
        path.client.ip(),
        told.quote(quoted),
    );

    let sent = timestamps(flow.edge(10, 20).data(&[7; 40]));
    let seen = flow.at_client(&sent, 10, 20).hops(1);
    let told = Tcp {
        source: path.edge,
        destination: path.source,
        seq: sent.seq,
        ..seen.clone()
    };
    let to_edge = error(
        Port::Wan0,
        path.client.ip(),
        path.service.ip(),
        seen.quote(quoted),
    );
    let edge_gets = to_edge.forwarded(
        path.lan.leaving(),
        path.source.ip(),
        path.edge.ip(),
        told.quote(quoted),
    );

    let step = |port, error: &Icmp, out: &Icmp| {
        Step::new(port, error.frame(), Fate::Forwarded(out.frame()))
            .counts(Counter::IcmpTranslated)
            .leaves(states(0, 0))
    };
    flow.row(&format!("an error with {quoted} bytes"))
        .step(step(path.lan, &to_client, &client_gets))
        .step(step(Port::Wan0, &to_edge, &edge_gets))
}
