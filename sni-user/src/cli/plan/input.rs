//! The list and the former plan.

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _},
    path::Path,
};

use super::super::{CliError, Environment};
use crate::plan::{Former, List};

/// Reads a list from a file, or from standard input for `-` or nothing. What is wrong with it goes to standard error.
pub(in crate::cli) fn read_list(
    path: Option<&Path>,
    environment: &mut Environment<'_>,
) -> Result<List, CliError> {
    let path = path.filter(|path| path.as_os_str() != "-");
    let (name, text) = match path {
        Some(path) => (path, fs::read(path)),
        None => (Path::new("standard input"), read_standard_input()?),
    };
    let failed = |source| CliError::File {
        what: "reading",
        path: name.to_owned(),
        source,
    };
    let text = String::from_utf8(text.map_err(failed)?).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        CliError::Usage(format!(
            "line {line} of {} is not UTF-8: save the list as \"CSV UTF-8\"",
            name.display()
        ))
    })?;
    let found = match List::parse(name, text) {
        Ok(list) => {
            write!(
                environment.err,
                "{}",
                list.warnings.render(environment.colour)
            )?;
            return Ok(list);
        }
        Err(found) => found,
    };
    write!(environment.err, "{}", found.render(environment.colour))?;
    Err(CliError::Reported)
}

fn read_standard_input() -> Result<io::Result<Vec<u8>>, CliError> {
    let mut input = io::stdin().lock();
    if input.is_terminal() {
        return Err(CliError::Usage(
            "which list? Name a file, or pipe the list in".into(),
        ));
    }
    let mut text = Vec::new();
    Ok(input.read_to_end(&mut text).map(|_| text))
}

/// Reads a former plan; there is none before the first.
pub(super) fn read_former(path: &Path) -> Result<Option<Former>, CliError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(CliError::File {
                what: "reading the former plan",
                path: path.to_owned(),
                source,
            });
        }
    };
    Former::parse(&text)
        .map(Some)
        .map_err(|source| CliError::FormerPlan {
            path: path.to_owned(),
            source,
        })
}
