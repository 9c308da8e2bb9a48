//! Which datapath and which agent a command is about.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{CliError, Environment};
use crate::config::Config;

/// Where pins are when nothing says otherwise; the default of `gateway.pin_path`.
const DEFAULT_PIN_PATH: &str = "/sys/fs/bpf/snigate";

/// Where the agent's socket is when nothing says otherwise; the default of `gateway.control`.
const DEFAULT_CONTROL: &str = "/run/snigate/control.sock";

/// Arguments of every command.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Place {
    /// Configuration file [default: /etc/snigate/snigate.toml]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where maps, programs and links are pinned [default: `gateway.pin_path` of the configuration]
    #[arg(long, global = true, value_name = "DIR", env = "SNIGATE_PIN_PATH")]
    pin_path: Option<PathBuf>,
    /// The running agent's control socket [default: `gateway.control` of the configuration]
    #[arg(long, global = true, value_name = "SOCKET", env = "SNIGATE_CONTROL")]
    control: Option<PathBuf>,
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
    pub(super) fn pin_path(&self) -> Result<PathBuf, CliError> {
        match &self.pin_path {
            Some(path) => Ok(path.clone()),
            None => Ok(self.configured()?.pin_path),
        }
    }

    /// The agent's control socket: as named, else as configured.
    pub(super) fn control(&self) -> Result<PathBuf, CliError> {
        match &self.control {
            Some(path) => Ok(path.clone()),
            None => Ok(self.configured()?.control),
        }
    }

    /// What the configuration says.
    ///
    /// Only these keys of it are read, so that other mistakes in it, or a thousand domains, don't stand between an operator and a running
    /// gateway. A file that nobody named need not exist.
    fn configured(&self) -> Result<Configured, CliError> {
        let file = self.config();
        let unreadable = |reason: String| CliError::Configuration {
            path: file.to_owned(),
            reason,
        };
        match fs::read_to_string(file) {
            Ok(text) => Configured::read(file, &text).map_err(unreadable),
            Err(error) if self.config.is_none() && is_absent(&error) => Ok(Configured::default()),
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

/// The places that a configuration names.
#[derive(Debug)]
struct Configured {
    pin_path: PathBuf,
    control: PathBuf,
}

impl Default for Configured {
    fn default() -> Self {
        Self {
            pin_path: DEFAULT_PIN_PATH.into(),
            control: DEFAULT_CONTROL.into(),
        }
    }
}

impl Configured {
    fn read(file: &Path, text: &str) -> Result<Self, String> {
        #[derive(Default, Deserialize)]
        struct File {
            #[serde(default)]
            gateway: Gateway,
        }
        #[derive(Default, Deserialize)]
        struct Gateway {
            pin_path: Option<PathBuf>,
            control: Option<PathBuf>,
        }
        let File { gateway } =
            toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())?;
        // As everywhere in the configuration: relative paths start from the file that names them.
        let directory = file.parent().unwrap_or(Path::new(""));
        let resolved = |path: Option<PathBuf>, default: PathBuf| match path {
            Some(path) => directory.join(path),
            None => default,
        };
        let default = Self::default();
        Ok(Self {
            pin_path: resolved(gateway.pin_path, default.pin_path),
            control: resolved(gateway.control, default.control),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(config: Option<&Path>, pin_path: Option<&str>) -> Place {
        Place {
            config: config.map(Path::to_owned),
            pin_path: pin_path.map(PathBuf::from),
            control: None,
        }
    }

    #[test]
    fn the_configured_places_are_found_among_mistakes() {
        let found = |text| Configured::read(Path::new("/etc/snigate/snigate.toml"), text);
        let mistaken = "[gateway]\npin_path = \"/sys/fs/bpf/other\"\nhok = 7\n[[edge]]\nname = 1\n";
        let mistaken = found(mistaken).unwrap();
        assert_eq!(mistaken.pin_path, Path::new("/sys/fs/bpf/other"));
        assert_eq!(mistaken.control, Path::new(DEFAULT_CONTROL));
        for empty in ["[gateway]\n", ""] {
            let found = found(empty).unwrap();
            assert_eq!(found.pin_path, Path::new(DEFAULT_PIN_PATH));
            assert_eq!(found.control, Path::new(DEFAULT_CONTROL));
        }
        let relative = found("[gateway]\npin_path = \"pins\"\ncontrol = \"agent.sock\"").unwrap();
        assert_eq!(relative.pin_path, Path::new("/etc/snigate/pins"));
        assert_eq!(relative.control, Path::new("/etc/snigate/agent.sock"));
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
        let error = place(Some(missing), None).control().unwrap_err();
        assert!(error.to_string().contains("--control"), "{error}");
        let named = place(Some(missing), Some("/sys/fs/bpf/x"))
            .pin_path()
            .unwrap();
        assert_eq!(named, Path::new("/sys/fs/bpf/x"));
    }
}
