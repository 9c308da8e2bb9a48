//! A conversation with the datapath: what a client and an Edge say, and what must come of it.

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::{
    Announced, Counter, DropReason, FlowKey, LearnedKey, Pending, SniName, SniRouteKey, Stage,
};
use snigate_tests::packets::frame::{ACK, PSH, RST, SYN, Tcp};
use snigate_tests::packets::plan::{CLIENT_ISN, Configuration, EDGE_ISN, Family, Path};
use snigate_tests::packets::{Action, Fate, Port, Scene, Step, key, same_frame};

use crate::inspect::inspected;

/// What SYN-ACKs announce.
pub(crate) const ANNOUNCED: Announced = Announced {
    mss_v4: 1400,
    mss_v6: 1380,
    scale: 9,
};
/// A domain with the usual name.
pub(crate) const DOMAIN: &str =
    "[[domain]]\nsip_domain = \"fabrikam.example\"\npool = \"pool-1\"\n";
/// The first byte of the client's stream.
pub(crate) const FIRST: u32 = CLIENT_ISN.wrapping_add(1);

/// What a SYN or SYN-ACK offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offers {
    pub mss: Option<u16>,
    pub sack: bool,
    /// The clock.
    pub timestamps: Option<u32>,
    pub scale: Option<u8>,
}

impl Offers {
    pub(crate) const CLIENT: Self = Self {
        mss: Some(1460),
        sack: true,
        timestamps: Some(0x1000_0000),
        scale: Some(7),
    };
    pub(crate) const EDGE: Self = Self {
        mss: Some(1460),
        sack: true,
        timestamps: Some(0x7000_0000),
        scale: Some(5),
    };
    pub(crate) const NOTHING: Self = Self {
        mss: None,
        sack: false,
        timestamps: None,
        scale: None,
    };

    /// As Linux writes them.
    pub(crate) fn linux(&self, echo: u32) -> Vec<u8> {
        let mut options = Vec::new();
        if let Some(mss) = self.mss {
            options.extend([&[2, 4][..], &mss.to_be_bytes()].concat());
        }
        match (self.sack, self.timestamps) {
            (sack, Some(value)) => {
                options.extend(if sack { [4, 2] } else { [1, 1] });
                options.extend(stamps(value, echo));
            }
            (true, None) => options.extend([1, 1, 4, 2]),
            (false, None) => {}
        }
        if let Some(scale) = self.scale {
            options.extend([1, 3, 3, scale]);
        }
        options
    }

    /// In another order, with the scale first.
    pub(crate) fn not_linux(&self) -> Vec<u8> {
        let mut options = Vec::new();
        if let Some(scale) = self.scale {
            options.extend([1, 3, 3, scale]);
        }
        let rest = Self {
            scale: None,
            ..*self
        };
        options.extend(rest.linux(0));
        options
    }
}

/// A timestamps option.
pub(crate) fn stamps(value: u32, echo: u32) -> Vec<u8> {
    [&[8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
}

/// A conversation, and what is known in it.
pub(crate) struct Talk<'a, 'r> {
    pub scene: &'a mut Scene<'r>,
    pub family: Family,
    pub path: Path,
    pub tags: &'static [(u16, u16)],
    /// Those that the Edge's come with.
    pub edge_tags: &'static [(u16, u16)],
    /// What the client's SYN offers.
    pub client: Offers,
    /// What the Edge's SYN-ACK does.
    pub edge: Offers,
    /// The sequence number of the last SYN-ACK to the client.
    pub cookie: u32,
    /// Its timestamp.
    pub stamp: u32,
}

impl<'a, 'r> Talk<'a, 'r> {
    /// Begins one, under the usual configuration.
    pub(crate) fn begin(
        scene: &'a mut Scene<'r>,
        family: Family,
        tags: &'static [(u16, u16)],
    ) -> Result<Self> {
        scene.configure(&inspected(DOMAIN))?;
        scene.datapath().maps.announce(Some(ANNOUNCED))?;
        Ok(Self {
            scene,
            family,
            path: Path::usual(family),
            tags,
            edge_tags: &[],
            client: Offers::CLIENT,
            edge: Offers::EDGE,
            cookie: 0,
            stamp: 0,
        })
    }

    /// Activates a configuration whose pool has these Edges.
    pub(crate) fn configure(&mut self, configuration: Configuration, more: &str) -> Result<()> {
        let text = configuration.render(&format!("{DOMAIN}{more}"));
        self.scene
            .configure(&text.replace("steer = \"pool-1\"", "inspect = true"))
    }

    pub(crate) fn step(&mut self, step: Step) -> Result<()> {
        step.run(self.scene)
    }

    /// The packet must go to the host.
    pub(crate) fn passes(&mut self, packet: &Tcp, counter: Counter) -> Result<()> {
        self.step(Step::untouched(Port::Wan0, packet.frame(), counter))
    }

    pub(crate) fn kept(&mut self, packet: &Tcp, counter: Counter) -> Result<()> {
        self.step(Step::new(Port::Wan0, packet.frame(), Fate::Kept(counter)))
    }

    pub(crate) fn dropped(&mut self, packet: &Tcp, reason: DropReason) -> Result<()> {
        self.step(Step::dropped(Port::Wan0, packet, reason))
    }

    pub(crate) fn client_packet(&self) -> Tcp {
        self.path.client_packet().tags(self.tags)
    }

    pub(crate) fn syn(&self) -> Tcp {
        self.client_packet()
            .flags(SYN)
            .seq(CLIENT_ISN)
            .options(&self.client.linux(0))
    }

    /// The SYN is answered with a cookie, with these options but for the timestamp.
    pub(crate) fn greeted(&mut self, syn: &Tcp, answers: Offers) -> Result<()> {
        let outcome = self.scene.send(Port::Wan0, &syn.frame())?;
        ensure!(
            outcome.action == Action::Redirect
                && outcome.counts.get(Counter::Cookies.name()) == Some(&1)
                && outcome.counts.len() == 1
                && outcome.events.is_empty(),
            "the SYN is not answered: {outcome:?}"
        );
        let tcp = outcome.frame.len() - 20 - answers.linux(0).len();
        let word = |at: usize| -> Result<u32> {
            let bytes = outcome.frame.get(at..at + 4).context("a short SYN-ACK")?;
            Ok(u32::from_be_bytes(bytes.try_into()?))
        };
        self.cookie = word(tcp + 4)?;
        let mut answers = answers;
        if let Some(value) = &mut answers.timestamps {
            let before = if answers.mss.is_some() { 4 } else { 0 };
            self.stamp = word(tcp + 20 + before + 4)?;
            *value = self.stamp;
        }
        let mut expected = Tcp::new(Port::Wan0.leaving(), self.path.service, self.path.client)
            .tags(self.tags)
            .flags(SYN)
            .seq(self.cookie)
            .ack(syn.seq.wrapping_add(1))
            .options(&answers.linux(self.client.timestamps.unwrap_or(0)));
        expected.window = 3072;
        same_frame(self.scene.program(), &expected.frame(), &outcome.frame)
    }

    /// What the usual SYN-ACK offers.
    pub(crate) fn greeting(&self) -> Offers {
        let announced = match self.family {
            Family::V4 => ANNOUNCED.mss_v4,
            Family::V6 => ANNOUNCED.mss_v6,
        };
        match self.client.timestamps {
            Some(_) => Offers {
                mss: Some(announced),
                scale: self.client.scale.map(|_| ANNOUNCED.scale),
                ..self.client
            },
            None => Offers {
                mss: Some(announced),
                ..Offers::NOTHING
            },
        }
    }

    /// The client begins.
    pub(crate) fn greet(&mut self) -> Result<()> {
        self.greeted(&self.syn(), self.greeting())
    }

    /// A segment of the client's, whose data is this part of its stream.
    pub(crate) fn segment(&self, at: u32, data: &[u8]) -> Tcp {
        let mut segment = self
            .client_packet()
            .seq(FIRST.wrapping_add(at))
            .ack(self.cookie.wrapping_add(1))
            .data(data);
        if !data.is_empty() {
            segment.flags |= PSH;
        }
        segment.window = 502;
        if let Some(value) = self.client.timestamps {
            segment.options = [vec![1, 1], stamps(value, self.stamp)].concat();
        }
        segment
    }

    /// The segment size that a cookie keeps of the client's.
    fn kept_mss(&self) -> u16 {
        let table: [u16; 4] = match self.family {
            Family::V4 => [536, 1300, 1440, 1460],
            Family::V6 => [1220, 1420, 1440, 8940],
        };
        let mss = self.client.mss.unwrap_or(536);
        let fitting = table.into_iter().rev().find(|entry| *entry <= mss);
        fitting.unwrap_or(table[0])
    }

    /// What the Edge is told of the client's SYN.
    fn mirrored(&self) -> Offers {
        match self.client.timestamps {
            Some(_) => Offers {
                mss: Some(self.kept_mss()),
                ..self.client
            },
            None => Offers {
                mss: Some(self.kept_mss()),
                ..Offers::NOTHING
            },
        }
    }

    fn client_scale(&self) -> u8 {
        self.client.timestamps.and(self.client.scale).unwrap_or(0)
    }

    /// The SYN that a segment of the client's becomes.
    pub(crate) fn edge_syn(&self, segment: &Tcp) -> Tcp {
        let mut syn = Tcp::new(self.path.lan.leaving(), self.path.source, self.path.edge)
            .tags(self.edge_tags)
            .flags(SYN)
            .seq(CLIENT_ISN)
            .hops(segment.hops - 1)
            .options(&self.mirrored().linux(0));
        let window = u32::from(segment.window) << self.client_scale();
        syn.window = window.min(65535) as u16;
        syn
    }

    /// The segment makes the datapath send the Edge a SYN.
    pub(crate) fn binds(&mut self, segment: &Tcp, counter: Counter) -> Result<()> {
        let syn = self.edge_syn(segment).frame();
        self.step(Step::new(
            Port::Wan0,
            segment.frame(),
            Fate::Replaced(syn, counter),
        ))
    }

    /// SYN, and a hello that is bound.
    pub(crate) fn bind(&mut self, hello: &[u8]) -> Result<()> {
        self.greet()?;
        self.binds(&self.segment(0, hello), Counter::Bound)
    }

    /// The Edge's SYN-ACK.
    pub(crate) fn syn_ack(&self) -> Tcp {
        let mut answer = self.path.syn_ack();
        let both = |client: bool, edge: bool| client && edge;
        let mirrored = self.mirrored();
        let offers = Offers {
            sack: both(mirrored.sack, self.edge.sack),
            timestamps: mirrored.timestamps.and(self.edge.timestamps),
            scale: mirrored.scale.and(self.edge.scale),
            ..self.edge
        };
        answer.options = offers.linux(self.client.timestamps.unwrap_or(0));
        answer.window = 65160;
        answer
    }

    /// A packet of the Edge's goes to the program behind.
    pub(crate) fn goes_behind(&mut self, packet: &Tcp) -> Result<()> {
        self.step(Step::untouched(
            self.path.lan,
            packet.frame(),
            Counter::EdgeAnswers,
        ))
    }

    /// And there meets its fate.
    pub(crate) fn behind(&mut self, packet: &Tcp, fate: Fate) -> Result<()> {
        self.goes_behind(packet)?;
        self.step(Step::new(self.path.lan, packet.frame(), fate).behind())
    }

    /// The timestamps of the Edge's leg, where it has any.
    fn edge_stamps(&self) -> Vec<u8> {
        match (self.client.timestamps, self.edge.timestamps) {
            (Some(client), Some(edge)) => [vec![1, 1], stamps(client, edge)].concat(),
            _ => Vec::new(),
        }
    }

    /// The segment with a part of the hello, as the Edge gets it from the datapath.
    pub(crate) fn delivered(&self, at: u32, data: &[u8]) -> Tcp {
        let mut segment = Tcp::new(self.path.lan.leaving(), self.path.source, self.path.edge)
            .tags(self.edge_tags)
            .seq(FIRST.wrapping_add(at))
            .ack(EDGE_ISN + 1)
            .data(data)
            .options(&self.edge_stamps());
        segment.window = 502;
        if self.edge.scale.is_none() {
            segment.window = (502u32 << self.client_scale()).min(65535) as u16;
        }
        segment
    }

    /// The Edge answers, and gets a hello of one segment.
    pub(crate) fn deliver(&mut self, hello: &[u8]) -> Result<()> {
        let out = self.delivered(0, hello);
        let out = Tcp {
            flags: ACK | PSH,
            ..out
        };
        let fate = Fate::Replaced(out.frame(), Counter::HellosDelivered);
        self.behind(&self.syn_ack(), fate)
    }

    /// The key of the client's packets.
    pub(crate) fn key(&self) -> FlowKey {
        key(self.path.client, self.path.service)
    }

    pub(crate) fn pending(&mut self) -> Option<Pending> {
        let key = self.key();
        self.scene.datapath().maps.pending.get(&key, 0).ok()
    }

    pub(crate) fn stage(&mut self, stage: Option<Stage>) -> Result<()> {
        let found = self.pending().map(|pending| pending.stage);
        ensure!(
            found == stage.map(|stage| stage as u8),
            "the stage is {found:?}, not {stage:?}"
        );
        Ok(())
    }

    /// Whether bytes of a hello are kept.
    pub(crate) fn has_hello(&mut self) -> bool {
        let key = self.key();
        self.scene.datapath().maps.hellos.get(&key, 0).is_ok()
    }

    /// Nothing is kept of the client.
    pub(crate) fn nothing_kept(&mut self) -> Result<()> {
        self.stage(None)?;
        ensure!(!self.has_hello(), "a hello is kept");
        let flows = self.scene.flows()?;
        crate::checks::no_flows(&flows).with_context(|| format!("{flows:?}"))
    }

    /// Changes what is pending of the client.
    pub(crate) fn change_pending(&mut self, change: impl FnOnce(&mut Pending)) -> Result<()> {
        let key = self.key();
        let mut pending = self.pending().context("nothing is pending")?;
        change(&mut pending);
        Ok(self.scene.datapath().maps.pending.insert(key, pending, 0)?)
    }

    /// The Edge of the half-open flow, of a pool of several.
    pub(crate) fn find_edge(&mut self) -> Result<()> {
        let flows = self.scene.flows()?;
        let flow = flows.half_open.first().context("no half-open flow")?;
        self.path = if flow.edge == Path::usual(self.family).edge {
            Path::usual(self.family)
        } else {
            Path::usual(self.family).to_edge_b()
        };
        Ok(())
    }

    pub(crate) fn route_key(&mut self, name: &str) -> Result<SniRouteKey> {
        Ok(SniRouteKey {
            generation: self.scene.datapath().maps.generation()?,
            name: SniName::new(name).map_err(|error| anyhow::anyhow!("{error}"))?,
        })
    }

    /// The key of what is learned of a name; the first IP set has the number 0.
    pub(crate) fn learned_key(&self, name: &str) -> Result<LearnedKey> {
        Ok(LearnedKey {
            ip_set: 0,
            name: SniName::new(name).map_err(|error| anyhow::anyhow!("{error}"))?,
        })
    }

    /// A reset of the client's.
    pub(crate) fn client_reset(&self, at: u32) -> Tcp {
        self.segment(at, b"").flags(RST | ACK)
    }
}
