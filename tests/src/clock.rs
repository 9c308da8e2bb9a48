//! A clock that jumps.

use std::{fs, path::PathBuf};

use anyhow::Result;

use crate::{Lab, gateway::instead_of_agent};

/// The agent with libfaketime, which has the clock of the day be as far off as a file says. The monotonic one is the kernel's.
const FAKED: &str = r#"
export LD_PRELOAD='/usr/$LIB/faketime/libfaketime.so.1'
export FAKETIME_TIMESTAMP_FILE="$DIR/clock" FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1
exec "$SNIGATE" "$@"
"#;

/// How far off the agent's clock is.
#[derive(Debug)]
pub struct Clock(PathBuf);

impl Clock {
    /// A clock that is right.
    ///
    /// # Errors
    /// Its file can't be written.
    pub fn new(lab: &Lab) -> Result<Self> {
        let this = Self(lab.dir().join("clock"));
        this.jump("+0")?;
        Ok(this)
    }

    /// A program in the place of `snigate`, whose agent goes by this clock.
    ///
    /// # Errors
    /// It can't be written.
    pub fn agent(lab: &Lab) -> Result<PathBuf> {
        instead_of_agent(lab, FAKED)
    }

    /// To so much before or after the true time.
    ///
    /// # Errors
    /// Its file can't be written.
    pub fn jump(&self, offset: &str) -> Result<()> {
        // A reader sees the one or the other.
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{offset}\n"))?;
        Ok(fs::rename(new, &self.0)?)
    }
}
