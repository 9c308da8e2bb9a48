//! Settings of the host that binding relies on: changed while it is wanted, and as they were afterwards.

use std::path::Path;

use super::AgentError;
use crate::{datapath::FormerSettings, net::host};

/// A setting of the network namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// As sysctl(8) has it.
    pub(crate) key: &'static str,
    /// What it must be.
    pub(crate) value: i64,
    /// What for.
    pub(crate) why: &'static str,
}

/// What binding relies on. The position is the number by which its former value is noted.
pub(crate) const SETTINGS: [Setting; 2] = [
    Setting {
        key: "net.ipv4.tcp_syncookies",
        value: 2,
        why: "the host answers every SYN with a cookie, and so accepts the datapath's",
    },
    Setting {
        key: "net.ipv4.tcp_timestamps",
        value: 2,
        why: "timestamps have no offset of their own for each peer, so that the datapath's can be the host's",
    },
];

/// Makes the settings so, and notes what they were. Whether any was not; those of an earlier agent are as they must be.
pub(super) fn make(pin_path: &Path) -> Result<bool, AgentError> {
    let mut changed = false;
    for (number, setting) in (0..).zip(&SETTINGS) {
        let found = host::setting(setting.key)?;
        if found == setting.value {
            continue;
        }
        // First the note: an agent that is killed in between has changed nothing.
        if let Some(mut former) = former(pin_path)? {
            former.note(number, &noted(setting.key, found))?;
        }
        host::set(setting.key, setting.value)?;
        changed = true;
        tracing::info!(
            setting = setting.key,
            from = found,
            to = setting.value,
            "changed for as long as the datapath binds connections: {}",
            setting.why
        );
    }
    Ok(changed)
}

/// Makes the settings what they were, unless somebody else has changed them meanwhile. Without a note nothing has been changed.
pub(super) fn restore(pin_path: &Path) -> Result<(), AgentError> {
    let Some(mut former) = former(pin_path)? else {
        return Ok(());
    };
    for (number, text) in former.all() {
        if let Some((setting, value)) = parse(&text) {
            let found = host::setting(setting.key)?;
            if found == setting.value {
                host::set(setting.key, value)?;
                tracing::info!(
                    setting = setting.key,
                    from = found,
                    to = value,
                    "as it was before the agent changed it"
                );
            } else {
                tracing::info!(
                    setting = setting.key,
                    value = found,
                    "left as it is: somebody has changed it meanwhile"
                );
            }
        }
        former.forget(number)?;
    }
    Ok(())
}

fn former(pin_path: &Path) -> Result<Option<FormerSettings>, AgentError> {
    let namespace = host::namespace()
        .map_err(|source| AgentError::io("asking for the network namespace's number", source))?;
    Ok(FormerSettings::open(pin_path, namespace)?)
}

fn noted(key: &str, value: i64) -> String {
    format!("{key}={value}")
}

/// What was noted; nothing for what this version does not change.
fn parse(text: &str) -> Option<(&'static Setting, i64)> {
    let (key, value) = text.split_once('=')?;
    let setting = SETTINGS.iter().find(|setting| setting.key == key)?;
    Some((setting, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sni_common::contract::Label;

    #[test]
    fn what_is_noted_is_found_again() {
        for setting in &SETTINGS {
            let text = noted(setting.key, i64::from(i32::MIN));
            let label = Label::new(&text);
            let (found, value) = parse(label.as_str()).expect("it fits a label");
            assert_eq!((found.key, value), (setting.key, i32::MIN.into()));
        }
        for other in [
            "",
            "net.ipv4.tcp_syncookies",
            "net.ipv4.tcp_sack=1",
            "net.ipv4.tcp_syncookies=x",
        ] {
            assert!(parse(other).is_none(), "{other}");
        }
    }
}
