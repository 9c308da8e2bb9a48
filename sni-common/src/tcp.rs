//! TCP as far as a middle box has to understand it: flags, sequence arithmetic, when a flow is closed.

/// FIN bit of the flags byte (RFC 9293, 3.1).
pub const FIN: u8 = 0x01;
/// SYN bit.
pub const SYN: u8 = 0x02;
/// RST bit.
pub const RST: u8 = 0x04;
/// PSH bit.
pub const PSH: u8 = 0x08;
/// ACK bit.
pub const ACK: u8 = 0x10;

/// Length of a TCP header without options, in bytes.
pub const HEADER_LEN: usize = 20;

/// Whether sequence number `a` is after `b` (RFC 9293, 3.4: arithmetic modulo 2^32).
#[inline(always)]
pub const fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

/// Sequence space that a segment takes: payload, and one for SYN and for FIN each (RFC 9293, 3.4).
#[inline(always)]
pub const fn segment_len(flags: u8, payload: u32) -> u32 {
    payload + (flags & SYN != 0) as u32 + (flags & FIN != 0) as u32
}

/// What kind of segment the datapath has before it when no flow is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// SYN alone: a new connection.
    Syn,
    /// Neither SYN nor RST: a connection that this gateway does not know (any longer).
    MidStream,
    /// RST: there is nothing left to reset.
    Reset,
    /// No valid segment: SYN with FIN or RST, SYN and ACK toward a service, or no flag at all.
    Invalid,
}

/// Classifies the flags of a segment toward a service that no flow claims.
#[inline(always)]
pub const fn opening(flags: u8) -> Opening {
    match flags & (SYN | ACK | RST | FIN) {
        SYN => Opening::Syn,
        f if f & SYN != 0 => Opening::Invalid,
        f if f & RST != 0 => Opening::Reset,
        f if f & ACK != 0 => Opening::MidStream,
        _ => Opening::Invalid,
    }
}

/// How far one direction of a flow has got; bits of a flow's `state`.
///
/// A FIN or an RST marks; idleness after the mark reaps. Traffic clears an RST's mark, because an RST with the right addresses and
/// ports can be forged blindly (RFC 5961, 3): the endpoint that does not accept it goes on talking.
pub mod state {
    /// This direction carried a FIN.
    pub const FIN: u8 = 0x01;
    /// This direction carried an RST with an acceptable sequence number.
    pub const RST: u8 = 0x02;
    /// Half-open: the Edge has answered with SYN and ACK.
    pub const SYN_ACKED: u8 = 0x04;
    /// Half-open: found in mid-stream and sent to the Edge that steering would have chosen; not yet confirmed by the Edge.
    pub const RECOVERED: u8 = 0x08;
    /// The agent may still have the socket of this direction: HANDING_OFF says.
    pub const HANDING_OFF: u8 = 0x10;
    /// The ClientHello of a bound flow is still kept, because the Edge has said nothing since its SYN-ACK.
    pub const HELLO_KEPT: u8 = 0x20;
}

/// The state of a direction after a segment with `flags` that is no RST.
#[inline(always)]
pub const fn advance(state: u8, flags: u8) -> u8 {
    let state = state & !self::state::RST;
    if flags & FIN != 0 {
        state | self::state::FIN
    } else {
        state
    }
}

/// How far ahead of what its receiver has acknowledged a sender may plausibly be, in bytes: more than Linux' largest default window.
///
/// What lies beyond is forwarded like everything else, but says nothing about the flow: a forger who has to guess hits once in a
/// thousand tries.
const IN_FLIGHT: u32 = 1 << 22;

/// Whether `seq` is `base` or plausibly soon after it.
#[inline(always)]
pub const fn plausible(seq: u32, base: u32) -> bool {
    seq.wrapping_sub(base) <= IN_FLIGHT
}

/// Whether the receiver of an RST would take it: only the very next sequence number counts (RFC 5961, 3.2).
///
/// `sender_next` is the highest sequence number seen from the RST's sender, `receiver_ack` what its receiver last acknowledged; the
/// two differ while data is in flight.
#[inline(always)]
pub const fn reset_is_acceptable(seq: u32, sender_next: u32, receiver_ack: u32) -> bool {
    seq == receiver_ack || (seq == sender_next && plausible(seq, receiver_ack))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn after_is_an_order_on_half_the_space(base: u32, ahead in 1u32..0x7fff_ffff) {
            let later = base.wrapping_add(ahead);
            prop_assert!(after(later, base));
            prop_assert!(!after(base, later));
            prop_assert!(!after(base, base));
        }

        #[test]
        fn any_traffic_clears_a_forged_reset(flags in any::<u8>().prop_filter("no RST", |f| f & RST == 0), before: u8) {
            prop_assert_eq!(advance(before | state::RST, flags) & state::RST, 0);
        }

        #[test]
        fn a_fin_is_never_forgotten(flags in prop::collection::vec(any::<u8>(), 0..20)) {
            let end = flags.iter().fold(state::FIN, |s, f| advance(s, *f));
            prop_assert_eq!(end & state::FIN, state::FIN);
        }
    }

    #[test]
    fn openings() {
        assert_eq!(opening(SYN), Opening::Syn);
        assert_eq!(
            opening(SYN | 0xc0),
            Opening::Syn,
            "ECN setup (RFC 3168) is an ordinary SYN"
        );
        assert_eq!(opening(ACK), Opening::MidStream);
        assert_eq!(opening(ACK | PSH), Opening::MidStream);
        assert_eq!(opening(ACK | FIN), Opening::MidStream);
        assert_eq!(opening(RST), Opening::Reset);
        assert_eq!(opening(RST | ACK), Opening::Reset);
        for invalid in [0, FIN, PSH, SYN | FIN, SYN | RST, SYN | ACK] {
            assert_eq!(opening(invalid), Opening::Invalid, "{invalid:#x}");
        }
    }

    #[test]
    fn a_blind_reset_is_not_acceptable() {
        assert!(reset_is_acceptable(1000, 1000, 900));
        assert!(reset_is_acceptable(900, 1000, 900));
        assert!(!reset_is_acceptable(950, 1000, 900));
        assert!(!reset_is_acceptable(0, 1000, 900));
        assert!(
            !reset_is_acceptable(0x8000_0000, 0x8000_0000, 900),
            "data that was forged before it does not help"
        );
        assert!(reset_is_acceptable(5, 5, 0xffff_fff0), "across the wrap");
    }
}
