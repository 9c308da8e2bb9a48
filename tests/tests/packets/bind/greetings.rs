//! SYNs, and what acknowledges their cookies.

use anyhow::{Result, ensure};
use sni_common::contract::{Counter, DropReason, Stage, client_options};
use snigate_tests::packets::frame::{ACK, FIN, RST, SYN};
use snigate_tests::packets::plan::Configuration;

use super::talk::{DOMAIN, Offers, Talk, stamps};
use super::{hello, table};

#[test]
fn bind_syns_are_answered() {
    table(
        "SYN cookies",
        &[
            ("all options", all_options),
            ("options in another order", other_order),
            ("no timestamps: neither scale nor SACK", no_timestamps),
            ("timestamps alone", timestamps_alone),
            ("no options", no_options),
            ("data", data),
            ("damaged", damaged_syn),
            ("IP options", ip_options),
            ("nothing is announced", silent),
            ("the service does not bind", not_bound),
            ("flags that make no SYN", nonsense),
        ],
    );
}

fn all_options(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.greet()?;
    // The kernel's format: the scale, SACK; and the mark for Linux.
    ensure!(talk.stamp & 0x1f == 7 | 0x10 && talk.stamp >> 6 & 7 == 0b101);
    talk.nothing_kept()?;
    let key = talk.key();
    ensure!(talk.scene.datapath().maps.client_syns.get(&key, 0).is_err());
    // The same again, with the same cookie.
    let cookie = talk.cookie;
    talk.greet()?;
    ensure!(talk.cookie.wrapping_sub(cookie) & 0x00ff_fff0 == 0 || talk.cookie == cookie);
    Ok(())
}

fn other_order(talk: &mut Talk<'_, '_>) -> Result<()> {
    let options = talk.client.not_linux();
    let syn = talk.syn().options(&options);
    talk.greeted(&syn, talk.greeting())?;
    ensure!(talk.stamp & 0x1f == 7 | 0x10 && talk.stamp >> 6 & 7 == 0b010);
    Ok(())
}

fn no_timestamps(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.client.timestamps = None;
    talk.greet()?;
    talk.nothing_kept()
}

fn timestamps_alone(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.client = Offers {
        timestamps: Some(7),
        ..Offers::NOTHING
    };
    // There is no room for the segment size.
    let answers = Offers {
        mss: None,
        ..talk.greeting()
    };
    talk.greeted(&talk.syn(), answers)?;
    ensure!(talk.stamp & 0x1f == 0xf, "neither scale nor SACK");
    Ok(())
}

fn no_options(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.client = Offers::NOTHING;
    talk.greeted(&talk.syn(), Offers::NOTHING)
}

/// The host would not take it either. Its client repeats it, and what is known of an earlier connection stays as it is meanwhile.
fn damaged_syn(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.dropped(&talk.syn().checksum_error(1), DropReason::BadChecksum)?;
    talk.greet()?;
    talk.kept(&talk.segment(0, b""), Counter::CookieAcks)?;
    talk.dropped(&talk.syn().checksum_error(1), DropReason::BadChecksum)?;
    talk.stage(Some(Stage::Acknowledged))
}

fn data(talk: &mut Talk<'_, '_>) -> Result<()> {
    let syn = talk.syn().data(b"too early");
    talk.greeted(&syn, talk.greeting())?;
    talk.nothing_kept()
}

fn ip_options(talk: &mut Talk<'_, '_>) -> Result<()> {
    let syn = if talk.path.client.is_ipv4() {
        talk.syn().ip_options(&[1, 1, 1, 1])
    } else {
        talk.syn().extension(60, &[0, 1, 4, 0, 0, 0, 0])
    };
    talk.passes(&syn, Counter::Inspected)
}

fn silent(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.scene.datapath().maps.announce(None)?;
    talk.passes(&talk.syn(), Counter::Inspected)?;
    talk.passes(&talk.segment(0, b""), Counter::Inspected)?;
    talk.passes(&talk.segment(0, &hello::usual()), Counter::Inspected)
}

fn not_bound(talk: &mut Talk<'_, '_>) -> Result<()> {
    let text = Configuration::default().render(DOMAIN);
    let inspects = "inspect = true\nbind = false";
    talk.scene
        .configure(&text.replace("steer = \"pool-1\"", inspects))?;
    talk.passes(&talk.syn(), Counter::Inspected)?;
    talk.passes(&talk.segment(0, &hello::usual()), Counter::Inspected)
}

fn nonsense(talk: &mut Talk<'_, '_>) -> Result<()> {
    for flags in [SYN | ACK, SYN | FIN, SYN | RST, 0, FIN] {
        let packet = talk.client_packet().seq(9).flags(flags);
        talk.passes(&packet, Counter::Inspected)?;
    }
    talk.nothing_kept()
}

#[test]
fn bind_cookies_come_back() {
    table(
        "cookies that come back",
        &[
            ("a bare acknowledgement", bare),
            ("without timestamps", bare_without_timestamps),
            ("bad cookies", bad),
            ("damaged cookies", damaged),
            ("the cookie of another segment size", other_size),
            ("RST and FIN", ends),
            ("a new SYN", anew),
        ],
    );
}

fn bare(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.greet()?;
    talk.kept(&talk.segment(0, b""), Counter::CookieAcks)?;
    talk.stage(Some(Stage::Acknowledged))?;
    let stamp = talk.stamp;
    let pending = talk.pending().unwrap_or_default();
    ensure!(
        pending.cookie == talk.cookie && pending.client_isn.wrapping_add(1) == super::talk::FIRST
    );
    ensure!((pending.ts_value, pending.ts_echo) == (0x1000_0000, stamp));
    ensure!((pending.window, pending.scale) == (502 << 7, 7));
    ensure!(
        pending.options
            == client_options::TIMESTAMPS
                | client_options::SACK
                | client_options::SCALE
                | client_options::LINUX
    );
    // Again: it is known now.
    talk.kept(&talk.segment(0, b""), Counter::CookieAcks)
}

fn bare_without_timestamps(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.client.timestamps = None;
    talk.greet()?;
    talk.kept(&talk.segment(0, b""), Counter::CookieAcks)?;
    let pending = talk.pending().unwrap_or_default();
    ensure!((pending.options, pending.scale, pending.window) == (0, 0, 502));
    Ok(())
}

fn bad(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.greet()?;
    let good = talk.segment(0, b"");
    let hello = talk.segment(0, &hello::usual());
    for by in [0x0100_0000, 0x0000_4000, 0x8000_0000] {
        talk.passes(&good.clone().ack(good.ack ^ by), Counter::BadCookies)?;
        talk.passes(&hello.clone().ack(good.ack ^ by), Counter::BadCookies)?;
    }
    talk.passes(&good.clone().seq(good.seq ^ 0x100), Counter::BadCookies)?;
    let mut other = good.clone();
    other.source.set_port(40_001);
    talk.passes(&other, Counter::BadCookies)?;
    talk.nothing_kept()
}

/// The cookie less one is the cookie of a smaller segment size. Of a damaged number the Edge's bytes would be moved by one.
fn damaged(talk: &mut Talk<'_, '_>) -> Result<()> {
    let usual = hello::usual();
    talk.greet()?;
    for data in [&b""[..], &usual] {
        let good = talk.segment(0, data);
        let other = good.clone().ack(good.ack.wrapping_sub(1));
        talk.dropped(&other.checksum_error(1), DropReason::BadChecksum)?;
        talk.nothing_kept()?;
    }
    talk.binds(&talk.segment(0, &usual), Counter::Bound)?;
    let pending = talk.pending();
    let mut again = talk.segment(0, &usual).checksum_error(1);
    again.options = [vec![1, 1], stamps(9, talk.stamp ^ 1)].concat();
    talk.dropped(&again, DropReason::BadChecksum)?;
    ensure!(talk.pending() == pending, "{:?}", talk.pending());
    talk.deliver(&usual)
}

/// A right checksum is what makes the difference.
fn other_size(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.greet()?;
    let good = talk.segment(0, b"");
    let other = good.clone().ack(good.ack.wrapping_sub(1));
    talk.kept(&other, Counter::CookieAcks)
}

fn ends(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.greet()?;
    let good = talk.segment(0, b"");
    talk.passes(&good.clone().flags(FIN | ACK), Counter::Inspected)?;
    talk.nothing_kept()?;
    for end in [FIN | ACK, RST | ACK, RST] {
        talk.kept(&good, Counter::CookieAcks)?;
        talk.passes(&good.clone().flags(end), Counter::Inspected)?;
        talk.nothing_kept()?;
    }
    Ok(())
}

fn anew(talk: &mut Talk<'_, '_>) -> Result<()> {
    talk.greet()?;
    talk.kept(&talk.segment(0, b""), Counter::CookieAcks)?;
    talk.greet()?;
    talk.nothing_kept()
}
