//! A scrape, as Prometheus makes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, bail, ensure};
use snigate_tests::Namespace;

use crate::TIMEOUT;

/// Where the agent serves its metrics by default.
pub(crate) const ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9461);

/// What a scrape has brought.
#[derive(Clone, Debug)]
pub(crate) struct Scrape {
    pub(crate) text: String,
    /// By name and labels, as they are written.
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Asks the agent in this namespace.
    pub(crate) fn new(namespace: &Namespace) -> Result<Self> {
        let (head, body) = namespace.run(|| get(ADDRESS, "/metrics"))?;
        ensure!(
            head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"),
            "{head}\n{body}"
        );
        Self::parse(body)
    }

    pub(crate) fn parse(text: String) -> Result<Self> {
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').context(line.to_owned())?;
            let value = value.parse().context(line.to_owned())?;
            let before = samples.insert(name.to_owned(), value);
            ensure!(before.is_none(), "{name} is there twice");
        }
        Ok(Self { text, samples })
    }

    /// The sample with this name and these labels, written as in the exposition.
    pub(crate) fn value(&self, sample: &str) -> Result<f64> {
        let value = self.samples.get(sample).copied();
        value.with_context(|| format!("no sample {sample} in\n{}", self.text))
    }

    /// The sum of the samples of this name that have all of these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let mine = self.samples.iter().filter(|(sample, _)| {
            let (of, written) = sample.split_once('{').unwrap_or((sample, ""));
            of == name && labels.iter().all(|label| written.contains(label))
        });
        mine.map(|(_, value)| value).sum()
    }

    /// The names of the families.
    pub(crate) fn families(&self) -> BTreeSet<&str> {
        let types = self
            .text
            .lines()
            .filter_map(|it| it.strip_prefix("# TYPE "));
        types.filter_map(|it| it.split(' ').next()).collect()
    }

    /// What is there, whatever its value.
    pub(crate) fn series(&self) -> BTreeSet<&str> {
        self.samples.keys().map(String::as_str).collect()
    }

    /// Checks that no counter has gone back since `earlier`.
    pub(crate) fn ensure_no_less_than(&self, earlier: &Self) -> Result<()> {
        let counts = |sample: &str| {
            let name = sample.split('{').next().unwrap_or_default();
            let ends = ["_total", "_bucket", "_count", "_sum"];
            ends.iter().any(|end| name.ends_with(end))
        };
        for (sample, before) in earlier.samples.iter().filter(|(it, _)| counts(it)) {
            let now = self.value(sample)?;
            ensure!(now >= *before, "{sample} went from {before} to {now}");
        }
        Ok(())
    }
}

/// Head and body of an answer.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) => Ok((head.to_owned(), body.to_owned())),
        None => bail!("no answer but {answer:?}"),
    }
}
