//! What a row's packets looked like, for Wireshark: `SNIGATE_PACKETS_PCAP=directory`.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use pcap_parser::{
    EnhancedPacketBlock, InterfaceDescriptionBlock, Linktype, OptionCode, PcapNGOption,
    SectionHeaderBlock, ToVec as _,
};

use super::rig::Port;
use super::scene::Action;

const VARIABLE: &str = "SNIGATE_PACKETS_PCAP";
/// Option codes mean something else in each kind of block; these are the ones that the crate has no names for.
const IF_NAME: OptionCode = OptionCode(2);
const EPB_FLAGS: OptionCode = OptionCode(2);
/// Direction bits of `epb_flags`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A pcapng file with the packets of one row: every frame in, on its interface, and what the datapath made of it.
pub(super) struct Capture {
    file: File,
    packets: u32,
}

impl Capture {
    /// The capture of the row `name`, if captures are asked for.
    pub(super) fn wanted(name: &str) -> Result<Option<Self>> {
        let Some(directory) = std::env::var_os(VARIABLE) else {
            return Ok(None);
        };
        let directory = Path::new(&directory);
        fs::create_dir_all(directory)
            .with_context(|| format!("making {}, as {VARIABLE} says", directory.display()))?;
        let name: String = name
            .chars()
            .map(|c| if c.is_alphanumeric() { c } else { '-' })
            .collect();
        let path = directory.join(format!("{name}.pcapng"));
        let mut file =
            File::create(&path).with_context(|| format!("writing {}", path.display()))?;
        let mut section = SectionHeaderBlock {
            block_type: 0,
            block_len1: 0,
            bom: 0,
            major_version: 0,
            minor_version: 0,
            section_len: -1,
            options: Vec::new(),
            block_len2: 0,
        };
        file.write_all(&section.to_vec()?)?;
        for port in Port::ALL {
            let mut interface = InterfaceDescriptionBlock {
                block_type: 0,
                block_len1: 0,
                linktype: Linktype::ETHERNET,
                reserved: 0,
                snaplen: 0,
                options: vec![option(IF_NAME, port.name().as_bytes())],
                block_len2: 0,
                if_tsresol: 6,
                if_tsoffset: 0,
            };
            file.write_all(&interface.to_vec()?)?;
        }
        Ok(Some(Self { file, packets: 0 }))
    }

    /// Records a frame, and what became of it.
    pub(super) fn record(
        &mut self,
        port: Port,
        frame: &[u8],
        action: Action,
        out: &[u8],
    ) -> Result<()> {
        let verdict = match action {
            Action::Pass => "XDP_PASS",
            Action::Drop => "XDP_DROP",
            Action::Redirect => "XDP_REDIRECT: the next frame",
        };
        self.write(port, frame, INBOUND, verdict)?;
        if action == Action::Redirect {
            // By the MAC address that it leaves from, since a test run does not tell the interface.
            let left = Port::ALL
                .into_iter()
                .find(|port| out.get(6..12) == Some(&port.mac()))
                .unwrap_or(port);
            self.write(left, out, OUTBOUND, "as the datapath sent it")?;
        }
        Ok(())
    }

    fn write(&mut self, port: Port, frame: &[u8], direction: u32, comment: &str) -> Result<()> {
        // A row has no time of its own; packets a millisecond apart keep their order.
        self.packets += 1;
        let mut block = EnhancedPacketBlock {
            block_type: 0,
            block_len1: 0,
            if_id: port as u32,
            ts_high: 0,
            ts_low: self.packets * 1000,
            caplen: frame.len() as u32,
            origlen: frame.len() as u32,
            data: frame,
            options: vec![
                option(OptionCode::Comment, comment.as_bytes()),
                option(EPB_FLAGS, &direction.to_le_bytes()),
            ],
            block_len2: 0,
        };
        self.file.write_all(&block.to_vec()?)?;
        Ok(())
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
