//! What a plan is written as.

mod configuration;
mod dns;
mod kamailio;
mod power_shell;
mod request;

use super::{Plan, Site, Terms};
use crate::config::HostName;

pub use self::{kamailio::KamailioFiles, request::InvalidSubject};

/// A plan, with all that is needed to write it down.
#[derive(Clone, Copy, Debug)]
pub struct Writing<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Where its certificates are shown.
    pub site: &'a Site,
    /// What it keeps to.
    pub terms: &'a Terms,
}

impl Writing<'_> {
    /// The name that partners of explicit federation enter.
    pub(super) fn provider_name(&self) -> Option<&HostName> {
        self.terms.shared_names.first()
    }
}

/// Such as `["198.51.100.10", "2001:db8::10"]`.
fn toml_list<T: std::fmt::Display>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", items.join(", "))
}
