//! `snigate plan`.

mod arguments;
mod files;
mod input;
mod summary;
mod view;

use std::time::Instant;

pub(super) use self::{
    arguments::{AddressSet, Arguments, address_set},
    input::read_list,
};

use super::{CliError, Environment, table};
use crate::plan::{Plan, PlanError, Writing};
use view::{Report, Statistics};

pub(super) fn run(
    arguments: &Arguments,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let started = Instant::now();
    let list = read_list(arguments.list.as_deref(), environment)?;
    let former = arguments.state.as_deref().map(input::read_former);
    let former = former.transpose()?.flatten();
    let (terms, site) = (arguments.terms(), arguments.site()?);
    let plan = match Plan::new(&list, former.as_ref(), &terms) {
        Ok(plan) => plan,
        Err(PlanError::List(found)) => {
            write!(environment.err, "{}", found.render(environment.colour))?;
            return Err(CliError::Reported);
        }
        Err(error) => return Err(CliError::Usage(error.to_string())),
    };
    let statistics = Statistics::since(started);
    let writing = Writing {
        plan: &plan,
        site: &site,
        terms: &terms,
    };
    let explained = arguments.explained(&plan)?;
    let outcome = files::write(arguments, &writing)?;
    let report = Report::new(&writing, former.is_some(), &outcome, statistics);
    if arguments.output.json {
        return table::write_json(environment, &report.with_explanations(&explained));
    }
    if explained.is_empty() {
        summary::write(&report, environment)?;
    }
    for placement in explained {
        for (nth, line) in writing.explain(placement).into_iter().enumerate() {
            let indent = if nth == 0 { "" } else { "    " };
            writeln!(environment.out, "{indent}{line}")?;
        }
    }
    Ok(())
}
