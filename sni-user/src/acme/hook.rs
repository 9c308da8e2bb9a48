//! A program of the operator's that publishes what proves a name, where this gateway can't.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::{AcmeError, challenge::Published, error::one_line};

/// A zone may take minutes to be everywhere, and the program is to return only then.
const PATIENCE: Duration = Duration::from_secs(300);

/// What it is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Add,
    Remove,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }
}

/// Runs it: `PROGRAM add|remove CHALLENGE WHERE WHAT`, and the same in the environment. Standard input is empty, and only what it says when it fails is
/// shown.
pub(super) async fn run(program: &Path, action: Action, it: &Published) -> Result<(), AcmeError> {
    let (place, content) = it.where_and_what();
    let failed = |why: String| {
        AcmeError::Hook(format!(
            "`{} {} {} {place} …` {why}",
            program.display(),
            action.word(),
            it.challenge()
        ))
    };
    let mut command = Command::new(program);
    command
        .args([action.word(), &it.challenge().to_string(), &place, content])
        .env("SNIGATE_ACME_ACTION", action.word())
        .env("SNIGATE_ACME_CHALLENGE", it.challenge().to_string())
        .env("SNIGATE_ACME_NAME", it.name())
        .env("SNIGATE_ACME_TOKEN", it.token())
        .env("SNIGATE_ACME_WHERE", &place)
        .env("SNIGATE_ACME_VALUE", content)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = match timeout(PATIENCE, command.output()).await {
        Err(_) => return Err(failed(format!("has not ended within {PATIENCE:?}"))),
        Ok(Err(error)) => return Err(failed(format!("can't be run: {error}"))),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = one_line(&String::from_utf8_lossy(&output.stderr));
    Err(failed(format!("has failed ({}): {said}", output.status)))
}
