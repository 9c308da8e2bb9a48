//! `[[edge]]`

use std::{net::SocketAddr, time::Duration};

use crate::config::{
    decode::{Directory, Input, Located, Section},
    diagnostics::Diagnostic,
    location::Location,
    model::{Edge, EdgeTls, Health, Roots},
    values::{HostName, SourceMode},
};

pub(in crate::config) struct EdgeDraft {
    pub(in crate::config) at: Location,
    pub(in crate::config) name: Option<Located<String>>,
    pub(in crate::config) address: Option<Located<SocketAddr>>,
    pub(in crate::config) has_tls: bool,
    pub(in crate::config) proxy_protocol: Option<Located<bool>>,
    source: SourceMode,
    tls: Option<EdgeTls>,
    health: Option<Health>,
}

impl EdgeDraft {
    pub(super) fn read(mut section: Section<'_>, directory: &Directory) -> Self {
        let draft = Self {
            at: section.at().clone(),
            name: section.required("name", "\"edge-a\""),
            address: section.required("address", "\"203.0.113.10:5061\""),
            has_tls: section.has("tls"),
            source: section.value("source").unwrap_or(SourceMode::Preserve),
            tls: section
                .input("tls")
                .and_then(|input| tls(&input, directory)),
            proxy_protocol: section.optional("proxy_protocol"),
            health: section.input("health").and_then(|input| health(&input)),
        };
        section.finish();
        draft
    }

    pub(super) fn build(self) -> Option<Edge> {
        let Self {
            name,
            address,
            source,
            tls,
            health,
            proxy_protocol,
            ..
        } = self;
        Some(Edge {
            name: name?.value.parse().ok()?,
            address: address?.value,
            source,
            tls,
            proxy_protocol: proxy_protocol.is_some_and(|it| it.value),
            health,
        })
    }
}

fn tls(input: &Input<'_>, directory: &Directory) -> Option<EdgeTls> {
    let mut section = Section::of("`tls` of [[edge]]", input)?;
    let name = section.required::<HostName>("name", "\"edge-a.hoster.example\"");
    let roots = roots(&mut section, "roots", directory);
    section.finish();
    Some(EdgeTls {
        name: name?.value,
        roots: roots.unwrap_or(Roots::System),
    })
}

/// `"system"` or a file.
pub(super) fn roots(
    section: &mut Section<'_>,
    key: &'static str,
    directory: &Directory,
) -> Option<Roots> {
    // `./system` is the way to name a file that is called so.
    if section.optional::<String>(key)?.value == "system" {
        return Some(Roots::System);
    }
    section.path(key, directory).map(Roots::File)
}

fn health(input: &Input<'_>) -> Option<Health> {
    let mut section = Section::of("`health` of [[edge]]", input)?;
    let count = |number: Option<u32>, default: u8| {
        number
            .and_then(|number| u8::try_from(number).ok())
            .unwrap_or(default)
    };
    let tls = section.value("tls").unwrap_or(false);
    let options = section.optional::<bool>("options");
    if let Some(Located { value: true, at }) = &options
        && !tls
    {
        let message =
            "`options` asks for a SIP request over TLS, and `tls` of this `health` is not true";
        section.report().push(
            Diagnostic::error(at.clone(), message)
                .help("write `tls = true` beside it, or leave `options` out"),
        );
    }
    let health = Health {
        tls,
        options: options.is_some_and(|options| options.value),
        interval: section
            .duration(
                "interval",
                Duration::from_millis(100)..=Duration::from_secs(3600),
                "",
            )
            .unwrap_or(Duration::from_secs(5)),
        fall: count(section.number("fall", 1..=255), 3),
        rise: count(section.number("rise", 1..=255), 2),
    };
    section.finish();
    Some(health)
}
