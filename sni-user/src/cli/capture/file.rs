//! A capture file, in the format pcapng (draft-ietf-opsawg-pcapng), which Wireshark reads.

use std::{borrow::Cow, io};

use pcap_parser::{
    EnhancedPacketBlock, InterfaceDescriptionBlock, Linktype, OptionCode, PcapNGOption,
    SectionHeaderBlock, ToVec,
};

/// Codes that pcap-parser has no names for; each kind of block has its own.
const IF_NAME: OptionCode = OptionCode(2);
const EPB_FLAGS: OptionCode = OptionCode(2);
const EPB_VERDICT: OptionCode = OptionCode(7);
/// Direction in `epb_flags`.
const INBOUND: u32 = 1;
/// `if_tsresol`: ten to the power of minus nine seconds.
const NANOSECONDS: u8 = 9;

/// What a program of the kernel has answered to a packet, in `epb_verdict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// An action of traffic control.
    TrafficControl(i64),
    /// An action of XDP.
    Xdp(u64),
}

/// A packet in the file.
pub(super) struct Frame<'a> {
    /// Number of the interface by [`Writer::interface`].
    pub(super) interface: u32,
    /// Since 1970, nanoseconds.
    pub(super) at_ns: u64,
    /// Its first bytes.
    pub(super) bytes: &'a [u8],
    /// Its whole length.
    pub(super) length: u32,
    /// What is said about it.
    pub(super) comments: &'a [String],
    /// What the program has answered.
    pub(super) answer: Option<Answer>,
}

/// Writes a file, block by block: a file that ends between two blocks is complete.
pub(super) struct Writer<W> {
    out: W,
    /// Indices of the interfaces that are described, in their order in the file.
    interfaces: Vec<u32>,
    snap: u32,
}

impl<W: io::Write> Writer<W> {
    /// Begins a file; `snap` is the number of bytes that packets are cut to.
    pub(super) fn begin(out: W, program: &str, comment: &str, snap: u32) -> io::Result<Self> {
        let mut this = Self {
            out,
            interfaces: Vec::new(),
            snap,
        };
        this.write(&mut SectionHeaderBlock {
            block_type: 0,
            block_len1: 0,
            bom: 0,
            major_version: 0,
            minor_version: 0,
            section_len: -1,
            options: vec![
                option(OptionCode::Comment, comment.as_bytes()),
                option(OptionCode::ShbUserAppl, program.as_bytes()),
            ],
            block_len2: 0,
        })?;
        Ok(this)
    }

    /// The number of an interface in the file, which describes it when it comes up first.
    pub(super) fn interface(
        &mut self,
        ifindex: u32,
        name: impl FnOnce() -> String,
    ) -> io::Result<u32> {
        let known = self.interfaces.iter().position(|it| *it == ifindex);
        if let Some(number) = known {
            return Ok(number as u32);
        }
        self.write(&mut InterfaceDescriptionBlock {
            block_type: 0,
            block_len1: 0,
            linktype: Linktype::ETHERNET,
            reserved: 0,
            snaplen: self.snap,
            options: vec![option(IF_NAME, name().as_bytes())],
            block_len2: 0,
            if_tsresol: NANOSECONDS,
            if_tsoffset: 0,
        })?;
        self.interfaces.push(ifindex);
        Ok(self.interfaces.len() as u32 - 1)
    }

    /// Adds a packet.
    pub(super) fn packet(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let comments = frame.comments.iter();
        let mut options: Vec<_> = comments
            .map(|comment| option(OptionCode::Comment, comment.as_bytes()))
            .collect();
        options.push(option(EPB_FLAGS, &INBOUND.to_le_bytes()));
        options.extend(frame.answer.map(|answer| {
            let (kind, value) = match answer {
                Answer::TrafficControl(action) => (1, action.to_le_bytes()),
                Answer::Xdp(action) => (2, action.to_le_bytes()),
            };
            option(EPB_VERDICT, &[&[kind], &value[..]].concat())
        }));
        self.write(&mut EnhancedPacketBlock {
            block_type: 0,
            block_len1: 0,
            if_id: frame.interface,
            ts_high: (frame.at_ns >> 32) as u32,
            ts_low: frame.at_ns as u32,
            caplen: frame.bytes.len() as u32,
            origlen: frame.length,
            data: frame.bytes,
            options,
            block_len2: 0,
        })
    }

    /// Has whoever reads it see all that was written.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn write(&mut self, block: &mut impl ToVec) -> io::Result<()> {
        let bytes = block.to_vec().map_err(io::Error::other)?;
        self.out.write_all(&bytes)
    }
}

/// An option, padded to words as the block wants it.
fn option(code: OptionCode, value: &[u8]) -> PcapNGOption<'static> {
    let mut padded = value.to_vec();
    padded.resize(value.len().next_multiple_of(4), 0);
    PcapNGOption {
        code,
        len: value.len() as u16,
        value: Cow::Owned(padded),
    }
}

#[cfg(test)]
mod tests {
    use pcap_parser::{Block, PcapNGCapture};

    use super::*;

    /// A file with three packets on two interfaces; `bytes` of every remainder by four.
    fn file() -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::begin(&mut out, "snigate 1.2.3", "what it is", 256).unwrap();
        for (index, (ifindex, bytes)) in [(7, &b"abcde"[..]), (3, b"abcdefgh"), (7, b"")]
            .into_iter()
            .enumerate()
        {
            let interface = writer
                .interface(ifindex, || format!("port{ifindex}"))
                .unwrap();
            writer
                .packet(&Frame {
                    interface,
                    at_ns: 1_700_000_000_123_456_789 + index as u64,
                    bytes,
                    length: 60,
                    comments: &[format!("the packet {index}"), "and more".to_owned()],
                    answer: Some(Answer::Xdp(1)),
                })
                .unwrap();
        }
        writer.flush().unwrap();
        out
    }

    fn text(option: &PcapNGOption<'_>) -> String {
        String::from_utf8(option.as_bytes().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn what_was_written_is_read_again() {
        let file = file();
        let capture = PcapNGCapture::from_file(&file).unwrap();
        let blocks = &capture.sections[0].blocks;
        let Block::SectionHeader(section) = &blocks[0] else {
            panic!("{:?}", blocks[0]);
        };
        assert_eq!(text(&section.options[0]), "what it is");
        assert_eq!(text(&section.options[1]), "snigate 1.2.3");
        let (mut interfaces, mut packets) = (Vec::new(), Vec::new());
        for block in &blocks[1..] {
            match block {
                Block::InterfaceDescription(it) => {
                    assert_eq!((it.if_tsresol, it.snaplen), (NANOSECONDS, 256));
                    assert_eq!(it.linktype, Linktype::ETHERNET);
                    interfaces.push(text(&it.options[0]));
                }
                Block::EnhancedPacket(it) => packets.push(it),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(interfaces, ["port7", "port3"]);
        assert_eq!(packets.len(), 3);
        for (index, (packet, (interface, bytes))) in packets
            .iter()
            .zip([(0, &b"abcde"[..]), (1, b"abcdefgh"), (0, b"")])
            .enumerate()
        {
            let at_ns = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            assert_eq!(at_ns, 1_700_000_000_123_456_789 + index as u64);
            assert_eq!((packet.if_id, packet.origlen), (interface, 60));
            assert_eq!(&packet.data[..packet.caplen as usize], bytes);
            assert_eq!(text(&packet.options[0]), format!("the packet {index}"));
            assert_eq!(text(&packet.options[1]), "and more");
            assert_eq!(packet.options[2].as_bytes(), Some(&[1, 0, 0, 0][..]));
            let verdict = [2, 1, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(packet.options[3].as_bytes(), Some(&verdict[..]));
        }
    }
}
