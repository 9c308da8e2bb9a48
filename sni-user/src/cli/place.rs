//! Which datapath a command is about.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{CliError, Environment};
use crate::config::Config;

/// Where pins are when nothing says otherwise; the default of `gateway.pin_path`.
const DEFAULT_PIN_PATH: &str = "/sys/fs/bpf/snigate";

/// Arguments of every command.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Place {
    /// Configuration file [default: /etc/snigate/snigate.toml]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where maps, programs and links are pinned [default: `gateway.pin_path` of the configuration]
    #[arg(long, global = true, value_name = "DIR", env = "SNIGATE_PIN_PATH")]
    pin_path: Option<PathBuf>,
}

impl Place {
    /// The configuration file.
    pub(super) fn config(&self) -> &Path {
        self.config
            .as_deref()
            .unwrap_or(Path::new(Config::DEFAULT_PATH))
    }

    /// The whole configuration; what is wrong with it goes to standard error.
    pub(super) fn load(&self, environment: &mut Environment<'_>) -> Result<Config, CliError> {
        match Config::load(self.config()) {
            Ok(loaded) => Ok(loaded.config),
            Err(diagnostics) => {
                let text = diagnostics.render(environment.colour);
                write!(environment.err, "{text}")?;
                Err(CliError::Reported)
            }
        }
    }

    /// The pin path that was named by hand.
    pub(super) fn pin_path_argument(&self) -> Option<&Path> {
        self.pin_path.as_deref()
    }

    /// The pin path: as named, else as configured.
    ///
    /// Only this one key of the configuration is read, so that other mistakes in it, or a thousand domains, don't stand between an
    /// operator and a running datapath. A file that nobody named need not exist.
    pub(super) fn pin_path(&self) -> Result<PathBuf, CliError> {
        if let Some(path) = &self.pin_path {
            return Ok(path.clone());
        }
        let file = self.config();
        let unreadable = |reason: String| CliError::Configuration {
            path: file.to_owned(),
            reason,
        };
        match fs::read_to_string(file) {
            Ok(text) => configured(file, &text).map_err(unreadable),
            Err(error) if self.config.is_none() && is_absent(&error) => Ok(DEFAULT_PIN_PATH.into()),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
    )
}

fn configured(file: &Path, text: &str) -> Result<PathBuf, String> {
    #[derive(Default, Deserialize)]
    struct File {
        #[serde(default)]
        gateway: Gateway,
    }
    #[derive(Default, Deserialize)]
    struct Gateway {
        pin_path: Option<PathBuf>,
    }
    let read: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let path = read
        .gateway
        .pin_path
        .unwrap_or_else(|| DEFAULT_PIN_PATH.into());
    // As everywhere in the configuration: relative paths start from the file that names them.
    Ok(file.parent().unwrap_or(Path::new("")).join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(config: Option<&Path>, pin_path: Option<&str>) -> Place {
        Place {
            config: config.map(Path::to_owned),
            pin_path: pin_path.map(PathBuf::from),
        }
    }

    #[test]
    fn the_configured_pin_path_is_found_among_mistakes() {
        let found = |text| configured(Path::new("/etc/snigate/snigate.toml"), text);
        let mistaken = "[gateway]\npin_path = \"/sys/fs/bpf/other\"\nhok = 7\n[[edge]]\nname = 1\n";
        assert_eq!(found(mistaken).unwrap(), Path::new("/sys/fs/bpf/other"));
        assert_eq!(found("[gateway]\n").unwrap(), Path::new(DEFAULT_PIN_PATH));
        assert_eq!(found("").unwrap(), Path::new(DEFAULT_PIN_PATH));
        assert_eq!(
            found("[gateway]\npin_path = \"pins\"").unwrap(),
            Path::new("/etc/snigate/pins")
        );
        assert!(found("[gateway").is_err());
    }

    #[test]
    fn what_was_named_by_hand_must_be_readable() {
        let missing = Path::new("/nonexistent/snigate.toml");
        let error = place(Some(missing), None).pin_path().unwrap_err();
        assert!(
            error
                .to_string()
                .contains("/nonexistent/snigate.toml can't be read"),
            "{error}"
        );
        let named = place(Some(missing), Some("/sys/fs/bpf/x"))
            .pin_path()
            .unwrap();
        assert_eq!(named, Path::new("/sys/fs/bpf/x"));
    }
}
