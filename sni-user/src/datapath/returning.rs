//! The way back to the agent's transparent sockets: the classifier that marks what Edges answer them.

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    tc::{NlOptions, TcAttachOptions},
};

use super::{AttachMode, Datapath, DatapathError, clsact, program::program};

/// Name of the program in the object.
pub(super) const PROGRAM: &str = "snigate_return";

/// How a classifier sits on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnHook {
    /// By a link that ends with the agent (Linux 6.6).
    Tcx,
    /// By a filter of traffic control, which outlives an agent that is killed; the next one replaces it.
    Clsact,
}

impl ReturnHook {
    /// The best that this kernel has, where the datapath is attached in this way.
    #[must_use]
    pub fn beside(datapath: AttachMode) -> Self {
        match (datapath, AttachMode::traffic_control()) {
            (AttachMode::Clsact, _) | (_, AttachMode::Clsact) => Self::Clsact,
            _ => Self::Tcx,
        }
    }
}

impl Datapath {
    /// Marks answers of Edges to this host's own connections (see [`sni_common::contract::TRANSPARENT_MARK`]) where they come in by these
    /// interfaces (name and index), and by no others. Idempotent: call it again when interfaces have changed.
    ///
    /// It serves the agent's sockets, and ends with the agent. It sits behind the datapath, whose hook it must share where that is
    /// [`AttachMode::Clsact`]: filters come after all links.
    ///
    /// # Errors
    /// When it can't be attached somewhere; it stays where it is attached.
    pub fn attach_return(
        &mut self,
        interfaces: &[(String, u32)],
        hook: ReturnHook,
    ) -> Result<(), DatapathError> {
        let program: &mut SchedClassifier = program(&mut self.ebpf, PROGRAM)?;
        let gone: Vec<_> = self
            .returns
            .extract_if(|interface, _| !interfaces.contains(interface))
            .collect();
        for ((interface, ifindex), link) in gone {
            // Mostly the interface is gone, and the filter with it.
            if let Err(error) = program.detach(link) {
                tracing::debug!(%error, interface, ifindex, "the classifier is not detached");
            }
        }
        for (name, ifindex) in interfaces {
            let key = (name.clone(), *ifindex);
            if self.returns.contains_key(&key) {
                continue;
            }
            let options = match hook {
                ReturnHook::Tcx => TcAttachOptions::TcxOrder(LinkOrder::last()),
                ReturnHook::Clsact => {
                    clsact::add_qdisc(name).map_err(|e| failed(name, e))?;
                    // That of an agent that was killed.
                    clsact::remove_filters(name, PROGRAM).map_err(|e| failed(name, e))?;
                    TcAttachOptions::Netlink(NlOptions::default())
                }
            };
            let link = program
                .attach_with_options(name, TcAttachType::Ingress, options)
                .map_err(|e| failed(name, e))?;
            self.returns.insert(key, link);
        }
        Ok(())
    }
}

fn failed(interface: &str, error: impl std::error::Error + Send + Sync + 'static) -> DatapathError {
    DatapathError::kernel(
        format!("attaching the classifier of Edges' answers to {interface}"),
        error,
    )
}
