//! A client that does not wait for an answer.

use anyhow::{Result, ensure};
use snigate_tests::{
    Topology,
    addresses::vips,
    peers::{Edge, End, PartnerTls, captured_hello},
};

use crate::{HANDED_OFF, HELLO, TIMEOUT, in_scenes};

const EARLY: u64 = 200_000;

#[test]
fn a_client_that_says_much_before_any_answer() {
    in_scenes("early", &Topology::default(), |scene| {
        let edge = scene.edge()?;
        for address in vips() {
            // Of one segment, of two, and of two records.
            for program in ["openssl-tls12", HELLO, "chromium", "openssl-split"] {
                let replayed = PartnerTls::replayed(captured_hello(program)?);
                let partner = scene.partner_with(&replayed);
                // In the segments of the hello.
                scene.cleanly_at_last(
                    &format!("{address}, with the hello of {program}"),
                    || {
                        partner.exchange_in_a_burst(address, EARLY, EARLY)?;
                        arrived(&edge)
                    },
                )?;
                // In those right behind it.
                scene.cleanly_at_last(
                    &format!("{address}, after the hello of {program}"),
                    || {
                        let done = partner.exchange(address, EARLY, EARLY)?;
                        arrived(&edge)?;
                        // One in several records is for the agent to read.
                        let way = if program == "openssl-split" {
                            HANDED_OFF
                        } else {
                            scene.way
                        };
                        scene.went_by(done.local, way)
                    },
                )?;
            }
        }
        Ok(())
    });
}

/// All of it, by whichever way: such a client may be done before there is a moment at which it can be handed off.
fn arrived(edge: &Edge) -> Result<()> {
    let report = edge.report(TIMEOUT)?;
    ensure!(
        (report.received, &report.end) == (EARLY, &End::Clean),
        "{report:?}"
    );
    Ok(())
}
