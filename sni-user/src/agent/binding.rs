//! Whether the datapath may bind: what it needs of the host and the listener, made so and kept so.
//!
//! The datapath answers SYNs with SYN cookies, and leaves to the host whom it can't bind: the host must complete those connections as if the SYN-ACK
//! had been its own. For that it must accept cookies (`cookies`), the listener must be stamped (`stamp` of the proxy), and the datapath must announce what
//! the listener would. Where any of it can't be had, the datapath answers no SYNs, and everything is the agent's as ever.

use std::time::Duration;

use sni_common::contract::Announced;
use tokio::time::{Instant, sleep_until};

use super::{AgentError, cookies, segments::Segments};
use crate::{
    config::{Config, Mode},
    control::BindingStatus,
    datapath::Maps,
    descriptors,
    net::host::HostError,
    proxy::stamp,
};

/// A stamp holds for two minutes (TCP_SYNCOOKIE_VALID of include/net/tcp.h).
const STAMP_EVERY: Duration = Duration::from_secs(50);
const STAMP_HOLDS: Duration = Duration::from_secs(110);
/// When to try again what has failed.
const AGAIN: Duration = Duration::from_secs(5);
/// Handshakes that the datapath has begun are still completed for this long when it begins no more of them; then the host's settings are its own.
const LAST_HANDSHAKES: Duration = Duration::from_secs(5);

/// The state of binding.
pub(super) struct Binding {
    state: State,
    since: Instant,
    stamp: Option<Stamp>,
    /// None while nothing is to be done before the next change.
    next: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    On(Announced),
    Off(Why),
}

#[derive(Clone, Copy)]
struct Stamp {
    at: Instant,
    scale: u8,
}

/// Why the datapath does not bind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Why {
    #[error("the agent is starting")]
    NotYet,
    #[error("no [[ip_set]] has `bind`")]
    Unwanted,
    #[error("{0}")]
    Settings(String),
    #[error(
        "the agent's listener can't be reached over loopback ({0}): see that the interface lo is up, and that no firewall is in the way"
    )]
    Stamp(String),
    #[error("the MTU of the attached interfaces is not known")]
    Segments,
    #[error("{0}")]
    Maps(String),
}

impl Binding {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            state: State::Off(Why::NotYet),
            since: now,
            stamp: None,
            next: None,
        }
    }

    /// Until [`Binding::follow`] is due.
    pub(super) async fn due(&self) {
        match self.next {
            Some(next) => sleep_until(next).await,
            None => std::future::pending().await,
        }
    }

    /// Stamps a listener that is about to take the place of an earlier agent's. The datapath goes on to answer SYNs meanwhile, and the host would reset
    /// whom it can't complete.
    pub(super) async fn introduce(&mut self, maps: &Maps, port: u16) {
        if matches!(maps.announced(), Ok(Some(_)))
            && let Err(why) = self.stamp(port).await
        {
            tracing::debug!(%why, "the listener is not stamped yet");
        }
    }

    /// Makes everything so, for the listener that is bound to `port`, or takes it back. To be called with every change, and when it is due.
    pub(super) async fn follow(
        &mut self,
        maps: &mut Maps,
        port: u16,
        config: &Config,
        segments: Option<Segments>,
    ) {
        let was_on = matches!(self.state, State::On(_));
        self.next = Some(Instant::now() + STAMP_EVERY);
        let state = match self.prepare(maps, port, config, segments).await {
            Ok(announced) => match maps.announce(Some(announced)) {
                Ok(()) => State::On(announced),
                Err(error) => State::Off(Why::Maps(error.to_string())),
            },
            Err(why) => State::Off(why),
        };
        if let State::Off(why) = &state {
            self.stop(maps);
            self.next = match why {
                Why::Unwanted if was_on => Some(Instant::now() + LAST_HANDSHAKES),
                Why::Unwanted => {
                    restore(maps);
                    None
                }
                _ => Some(Instant::now() + AGAIN),
            };
        }
        self.turn(state);
    }

    async fn prepare(
        &mut self,
        maps: &Maps,
        port: u16,
        config: &Config,
        segments: Option<Segments>,
    ) -> Result<Announced, Why> {
        if !wanted(config) {
            return Err(Why::Unwanted);
        }
        let changed = match cookies::make(maps.pin_path()) {
            // Nobody can look, which says nothing of what is there.
            Err(AgentError::Host(HostError::Setting { reason, .. }))
                if descriptors::is_want(&reason) && matches!(self.state, State::On(_)) =>
            {
                false
            }
            made => made.map_err(|error| Why::Settings(error.to_string()))?,
        };
        if changed {
            // What was answered before was answered without a cookie.
            self.stamp = None;
        }
        let scale = self.stamp(port).await?;
        let [mss_v4, mss_v6] = segments.ok_or(Why::Segments)?.announced;
        Ok(Announced {
            mss_v4,
            mss_v6,
            scale,
        })
    }

    /// Sees to a fresh stamp. One that can't be renewed serves for as long as it holds: the listener's queue may be full for a moment.
    async fn stamp(&mut self, port: u16) -> Result<u8, Why> {
        let age = |stamp: &Stamp| stamp.at.elapsed();
        if let Some(stamp) = self.stamp.filter(|stamp| age(stamp) < STAMP_EVERY / 2) {
            self.next = Some(stamp.at + STAMP_EVERY);
            return Ok(stamp.scale);
        }
        let at = Instant::now();
        match stamp(port).await {
            Ok(scale) => {
                self.stamp = Some(Stamp { at, scale });
                Ok(scale)
            }
            Err(error) => match self.stamp.filter(|stamp| age(stamp) < STAMP_HOLDS) {
                Some(stamp) => {
                    tracing::debug!(%error, "the listener can't be stamped anew yet");
                    self.next = Some(Instant::now() + AGAIN);
                    Ok(stamp.scale)
                }
                None => Err(Why::Stamp(error.to_string())),
            },
        }
    }

    /// The datapath answers no SYNs from here on.
    fn stop(&mut self, maps: &mut Maps) {
        self.stamp = None;
        if let Err(error) = maps.announce(None) {
            tracing::error!(%error, "the datapath can't be told to leave all connections to the agent");
        }
    }

    fn turn(&mut self, state: State) {
        if state == self.state {
            return;
        }
        match (&self.state, &state) {
            (_, State::On(announced)) => tracing::info!(
                mss_v4 = announced.mss_v4,
                mss_v6 = announced.mss_v6,
                scale = announced.scale,
                "the datapath answers SYNs to addresses with `bind`, and binds connections whose server name it knows"
            ),
            (State::On(_), State::Off(Why::Unwanted)) => {
                tracing::info!(
                    "the datapath binds no connections any longer: {}",
                    Why::Unwanted
                );
            }
            (_, State::Off(Why::Unwanted | Why::NotYet)) => {}
            (_, State::Off(why)) => {
                tracing::warn!(
                    "the datapath binds no connections, the agent takes them all: {why}"
                );
            }
        }
        // A change of what is announced is none of whether.
        if !matches!((&self.state, &state), (State::On(_), State::On(_))) {
            self.since = Instant::now();
        }
        self.state = state;
    }

    /// Takes everything back, at an orderly end.
    pub(super) fn end(&mut self, maps: &mut Maps) -> Result<(), AgentError> {
        self.stop(maps);
        cookies::restore(maps.pin_path())
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            off: match &self.state {
                State::On(_) => None,
                State::Off(why) => Some(why.to_string()),
            },
            since: self.since,
            stamped: self.stamp.map(|stamp| stamp.at),
        }
    }
}

/// What is told of it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    off: Option<String>,
    since: Instant,
    stamped: Option<Instant>,
}

impl Facts {
    /// Whether the datapath binds.
    pub(super) fn is_on(&self) -> bool {
        self.off.is_none()
    }

    pub(super) fn status(&self) -> BindingStatus {
        let ms = |since: Instant| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        BindingStatus {
            off: self.off.clone(),
            since_ms: ms(self.since),
            stamped_ms: self.stamped.map(ms),
        }
    }
}

/// Whether anything may be bound.
pub(crate) fn wanted(config: &Config) -> bool {
    let binds = |mode: &Mode| matches!(mode, Mode::Inspect { bind: true, .. });
    config.ip_sets.iter().any(|set| binds(&set.mode))
}

fn restore(maps: &Maps) {
    if let Err(error) = cookies::restore(maps.pin_path()) {
        tracing::warn!(%error, "settings that only binding needs can't be made what they were");
    }
}
