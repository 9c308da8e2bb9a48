//! At which hook the datapath is attached, and why.
//!
//! It is one hook for all interfaces: a native XDP program can't send to every interface. A veth whose peer has neither GRO nor a program of its
//! own drops what is redirected to it, without a word, and a driver without `ndo_xdp_xmit` refuses it.

use crate::{
    config::Hook,
    control::AttachedInterface,
    datapath::{AttachMode, DatapathError},
    net::host,
};

/// Drivers of virtual interfaces, whose packets come merged and without checksums from a neighbour on the same machine. XDP can have them only with
/// that switched off, at one end or at both, which costs more than XDP saves.
const VIRTUAL: &[&str] = &[
    "veth",
    "virtio_net",
    "tun",
    "bridge",
    "macvlan",
    "ipvlan",
    "802.1Q VLAN Support",
    "vlan",
    "team",
    "dummy",
    "ifb",
    "vxlan",
    "geneve",
    "openvswitch",
    "vmxnet3",
    "hv_netvsc",
    "vif",
    "netkit",
];

/// The hook for a configuration's interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    hook: Hook,
    pub(crate) mode: AttachMode,
    seats: Vec<Seat>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seat {
    interface: String,
    driver: Option<String>,
    reason: String,
}

impl Choice {
    /// Chooses for these interfaces of this network namespace.
    pub(crate) fn new(hook: Hook, interfaces: &[String]) -> Self {
        let drivers = interfaces.iter().map(|name| host::driver(name).ok());
        let drivers = interfaces.iter().cloned().zip(drivers).collect();
        Self::of(hook, AttachMode::traffic_control(), drivers)
    }

    fn of(hook: Hook, traffic_control: AttachMode, drivers: Vec<(String, Option<String>)>) -> Self {
        let seat = |(interface, driver)| Seat {
            interface,
            driver,
            reason: "as configured".to_owned(),
        };
        let mut choice = Self {
            hook,
            mode: AttachMode::Xdp,
            seats: drivers.into_iter().map(seat).collect(),
        };
        match hook {
            Hook::Xdp => {}
            Hook::XdpGeneric => choice.mode = AttachMode::XdpGeneric,
            Hook::Tcx => choice.mode = traffic_control,
            Hook::Auto => choice.by_drivers(traffic_control),
        }
        choice
    }

    fn by_drivers(&mut self, traffic_control: AttachMode) {
        let mut reasons = Vec::new();
        for seat in &self.seats {
            if let Some(driver) = seat.driver.as_deref().filter(|it| VIRTUAL.contains(it)) {
                let kind = driver.split(' ').next().unwrap_or(driver);
                let reason = format!("{kind} keeps its offloads at this hook");
                reasons.push((seat.interface.clone(), reason));
            }
        }
        if !reasons.is_empty() {
            return self.all_at(traffic_control, &reasons);
        }
        for seat in &mut self.seats {
            seat.reason = match &seat.driver {
                Some(driver) => format!("{driver} runs XDP itself"),
                None => "its driver runs XDP itself".to_owned(),
            };
        }
    }

    /// Moves all interfaces to one hook, because of some of them.
    fn all_at(&mut self, mode: AttachMode, because_of: &[(String, String)]) {
        self.mode = mode;
        let (first, _) = &because_of[0];
        let of = |name| because_of.iter().find(|(known, _)| known == name);
        for seat in &mut self.seats {
            seat.reason = match of(&seat.interface) {
                Some((_, reason)) => reason.clone(),
                None => format!("the same hook as {first}, which XDP might not reach"),
            };
        }
    }

    /// Whether it was made for this.
    pub(crate) fn is_for<'a>(
        &self,
        hook: Hook,
        interfaces: impl Iterator<Item = &'a String>,
    ) -> bool {
        self.hook == hook && self.seats.iter().map(|seat| &seat.interface).eq(interfaces)
    }

    /// The next best hook when the kernel has refused this one; `None` where there is none, or the configuration allows no other.
    pub(crate) fn next(&self, error: &DatapathError) -> Option<Self> {
        if self.hook != Hook::Auto {
            return None;
        }
        let (mode, interface, reason) = match error {
            DatapathError::NoNativeXdp { interface, .. } if self.mode == AttachMode::Xdp => (
                AttachMode::traffic_control(),
                interface,
                "its driver has no XDP",
            ),
            DatapathError::InterfaceBusy { interface } if self.mode == AttachMode::Xdp => (
                AttachMode::traffic_control(),
                interface,
                "another XDP program is attached",
            ),
            DatapathError::NoTrafficControl { interface, .. } => (
                AttachMode::XdpGeneric,
                interface,
                "traffic control takes no program here",
            ),
            _ => return None,
        };
        let mut next = self.clone();
        next.all_at(mode, &[(interface.clone(), reason.to_owned())]);
        Some(next)
    }

    /// Where the datapath sits on each interface, and why.
    pub(crate) fn attached(&self) -> Vec<AttachedInterface> {
        let attached = |seat: &Seat| AttachedInterface {
            interface: seat.interface.clone(),
            hook: self.mode.name().to_owned(),
            reason: seat.reason.clone(),
        };
        self.seats.iter().map(attached).collect()
    }

    /// The same of one interface.
    pub(crate) fn of_interface(&self, name: &str) -> Option<AttachedInterface> {
        self.attached().into_iter().find(|it| it.interface == name)
    }

    /// The driver of an interface.
    pub(crate) fn driver(&self, name: &str) -> Option<&str> {
        let seat = self.seats.iter().find(|seat| seat.interface == name)?;
        seat.driver.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(hook: Hook, drivers: &[(&str, &str)]) -> Choice {
        let owned = |(name, driver): &(&str, &str)| {
            let driver = Some((*driver).to_owned()).filter(|it| !it.is_empty());
            ((*name).to_owned(), driver)
        };
        let drivers = drivers.iter().map(owned).collect();
        Choice::of(hook, AttachMode::Tcx, drivers)
    }

    fn lines(choice: &Choice) -> Vec<String> {
        choice.attached().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn physical_interfaces_get_xdp() {
        let chosen = choice(Hook::Auto, &[("wan0", "ixgbe"), ("lan0", "")]);
        assert_eq!(
            lines(&chosen),
            [
                "wan0: xdp (ixgbe runs XDP itself)",
                "lan0: xdp (its driver runs XDP itself)"
            ]
        );
    }

    #[test]
    fn one_virtual_interface_takes_all_to_tcx() {
        let chosen = choice(
            Hook::Auto,
            &[
                ("wan0", "ixgbe"),
                ("lan0", "veth"),
                ("v", "802.1Q VLAN Support"),
            ],
        );
        assert_eq!(
            lines(&chosen),
            [
                "wan0: tcx (the same hook as lan0, which XDP might not reach)",
                "lan0: tcx (veth keeps its offloads at this hook)",
                "v: tcx (802.1Q keeps its offloads at this hook)"
            ]
        );
    }

    #[test]
    fn a_hook_that_is_configured_is_taken() {
        for (hook, mode) in [
            (Hook::Xdp, AttachMode::Xdp),
            (Hook::XdpGeneric, AttachMode::XdpGeneric),
            (Hook::Tcx, AttachMode::Tcx),
        ] {
            let chosen = choice(hook, &[("wan0", "veth")]);
            assert_eq!(chosen.mode, mode);
            assert_eq!(lines(&chosen), [format!("wan0: {mode} (as configured)")]);
            assert_eq!(chosen.next(&refused("wan0")), None);
        }
    }

    fn refused(interface: &str) -> DatapathError {
        DatapathError::NoNativeXdp {
            interface: interface.to_owned(),
            reason: "Operation not supported".to_owned(),
        }
    }

    #[test]
    fn what_is_refused_is_tried_otherwise() {
        let chosen = choice(Hook::Auto, &[("wan0", "ixgbe"), ("lan0", "e1000")]);
        let next = chosen.next(&refused("lan0")).expect("another hook");
        assert_eq!(next.mode, AttachMode::traffic_control());
        assert!(lines(&next)[1].ends_with("(its driver has no XDP)"));
        assert!(lines(&next)[0].contains("the same hook as lan0"));
        let no_place = DatapathError::NoTrafficControl {
            interface: "wan0".to_owned(),
            reason: "Invalid argument".to_owned(),
        };
        let last = next.next(&no_place).expect("generic XDP");
        assert_eq!(last.mode, AttachMode::XdpGeneric);
        assert_eq!(last.next(&refused("wan0")), None);
    }

    #[test]
    fn it_is_made_for_a_hook_and_interfaces() {
        let chosen = choice(Hook::Auto, &[("wan0", "veth"), ("lan0", "veth")]);
        let (wan, lan) = ("wan0".to_owned(), "lan0".to_owned());
        assert!(chosen.is_for(Hook::Auto, [&wan, &lan].into_iter()));
        assert!(!chosen.is_for(Hook::Tcx, [&wan, &lan].into_iter()));
        assert!(!chosen.is_for(Hook::Auto, [&wan].into_iter()));
    }
}
