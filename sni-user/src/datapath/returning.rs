//! The classifier of Edges' answers: it marks those to the agent's transparent sockets, and sends the ClientHellos of bound connections for the others.

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions},
};

use super::{
    AttachMode, Datapath, DatapathError,
    attach::attach_tcx,
    clsact,
    program::{LINKS_DIR, detach_pinned, pinned_files, program},
};

/// Name of the program in the object.
pub(super) const PROGRAM: &str = "snigate_return";

/// How a classifier sits on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnHook {
    /// By a pinned link (Linux 6.6), which outlives the agent like the datapath's own: what is bound needs it.
    Tcx,
    /// By a filter of traffic control, which outlives an agent that is killed, but not one that ends orderly; the next one replaces it.
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
    /// It sits behind the datapath, whose hook it must share where that is [`AttachMode::Clsact`]: filters come after all links.
    ///
    /// # Errors
    /// When it can't be attached somewhere; it stays where it is attached.
    pub fn attach_return(
        &mut self,
        interfaces: &[(String, u32)],
        hook: ReturnHook,
    ) -> Result<(), DatapathError> {
        let links = self.pin_path.join(LINKS_DIR);
        let wanted: Vec<_> = match hook {
            ReturnHook::Tcx => interfaces.iter().map(pin_of).collect(),
            ReturnHook::Clsact => Vec::new(),
        };
        // An earlier agent's, too.
        for file in pinned_files(&self.pin_path)? {
            if file.starts_with(PIN) && !wanted.contains(&file) {
                detach_pinned(&links.join(file))?;
            }
        }
        let program: &mut SchedClassifier = program(&mut self.ebpf, PROGRAM)?;
        let gone: Vec<_> = self
            .returns
            .extract_if(|interface, _| !interfaces.contains(interface))
            .collect();
        for ((interface, ifindex), link) in gone {
            // Mostly the interface is gone, and the filter with it.
            if let Some(Err(error)) = link.map(|link| program.detach(link)) {
                tracing::debug!(%error, interface, ifindex, "the classifier is not detached");
            }
        }
        for interface in interfaces {
            if self.returns.contains_key(interface) {
                continue;
            }
            let link = match hook {
                ReturnHook::Tcx => {
                    let pin = links.join(pin_of(interface));
                    attach_tcx(program, &interface.0, LinkOrder::last(), &pin, |e| {
                        failed(&interface.0, e)
                    })?;
                    None
                }
                ReturnHook::Clsact => Some(attach_filter(program, &interface.0)?),
            };
            self.returns.insert(interface.clone(), link);
        }
        Ok(())
    }
}

/// What the pins of these links begin with.
const PIN: &str = "return:";

/// The pin of an interface's link. A BPF filesystem takes no dots.
fn pin_of((interface, ifindex): &(String, u32)) -> String {
    format!("{PIN}{ifindex}:{}", interface.replace('.', ":"))
}

fn attach_filter(
    program: &mut SchedClassifier,
    interface: &str,
) -> Result<SchedClassifierLinkId, DatapathError> {
    clsact::add_qdisc(interface).map_err(|e| failed(interface, e))?;
    // That of an agent that was killed.
    clsact::remove_filters(interface, PROGRAM).map_err(|e| failed(interface, e))?;
    let options = TcAttachOptions::Netlink(NlOptions::default());
    program
        .attach_with_options(interface, TcAttachType::Ingress, options)
        .map_err(|e| failed(interface, e))
}

fn failed(interface: &str, error: impl std::error::Error + Send + Sync + 'static) -> DatapathError {
    DatapathError::kernel(
        format!("attaching the classifier of Edges' answers to {interface}"),
        error,
    )
}
