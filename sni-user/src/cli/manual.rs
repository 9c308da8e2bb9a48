//! `snigate completions` and `snigate man`: what packagers install.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{CliError, Environment, units};

#[derive(clap::Args, Debug)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

#[derive(clap::Args, Debug)]
pub(super) struct Man {
    /// Write one page per command into this directory instead
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(super) fn completions(
    arguments: &Completions,
    mut command: clap::Command,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    // Into memory first: clap_complete panics when it can't write.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "snigate", &mut script);
    environment.out.write_all(&script)?;
    Ok(())
}

pub(super) fn man(
    arguments: &Man,
    command: clap::Command,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let Some(directory) = &arguments.directory else {
        clap_mangen::Man::new(command).render(&mut environment.out)?;
        return Ok(());
    };
    let pages = write_pages(directory, command).map_err(|source| CliError::File {
        what: "writing manual pages to",
        path: directory.clone(),
        source,
    })?;
    let pages = units::counted(pages, "manual page");
    writeln!(
        environment.out,
        "{pages} written to {}",
        directory.display()
    )?;
    Ok(())
}

fn write_pages(directory: &Path, command: clap::Command) -> std::io::Result<usize> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(command, directory)?;
    Ok(fs::read_dir(directory)?.count())
}
