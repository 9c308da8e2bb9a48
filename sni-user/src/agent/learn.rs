//! SNI_LEARNED: what came of the server names that clients asked for.

use std::{collections::HashMap, thread, time::Duration};

use sni_common::contract::{
    Learned, Matched, NO_POOL, ROUTE_AGENT, ROUTE_CONDITIONAL, RouteAction, SniName,
};
use tokio::sync::mpsc;

use crate::{
    clock::monotonic_ns,
    config::Domain,
    datapath::{DatapathError, Maps},
    proxy::{Lesson, Target, Verdict},
};

/// Between two visits to the map. A name is learned at once when none was just before; what comes meanwhile is written together, so that a busy gateway
/// does not wake a thread, and ask the kernel twice, for each of its connections.
const REST: Duration = Duration::from_millis(20);

/// Lessons that are written in one visit, at most.
const VISIT: usize = 4096;

/// Writes what there is to learn, in a thread of its own. It ends with the proxy.
pub(super) fn start(mut lessons: mpsc::Receiver<Lesson>, mut maps: Maps) {
    thread::spawn(move || {
        let mut failing = false;
        let mut heard = Vec::new();
        while lessons.blocking_recv_many(&mut heard, VISIT) != 0 {
            for (lesson, hits) in by_name(heard.drain(..)) {
                let learned = learn(&mut maps, &lesson, hits);
                if let Err(error) = &learned
                    && !failing
                {
                    tracing::error!(%error, "server names can't be learned; connections are routed all the same");
                }
                failing = learned.is_err();
            }
            thread::sleep(REST);
        }
    });
}

/// The last lesson of each name, and how many there were.
fn by_name(lessons: impl Iterator<Item = Lesson>) -> Vec<(Lesson, u64)> {
    let mut names = HashMap::new();
    let mut last = Vec::<(Lesson, u64)>::new();
    for lesson in lessons {
        let at = *names
            .entry((lesson.ip_set, lesson.name.clone()))
            .or_insert(last.len());
        match last.get_mut(at) {
            Some((earlier, hits)) => {
                *earlier = lesson;
                *hits += 1;
            }
            None => last.push((lesson, 1)),
        }
    }
    last
}

fn learn(maps: &mut Maps, lesson: &Lesson, hits: u64) -> Result<(), DatapathError> {
    let active = &lesson.active;
    let (Some(ip_set), Ok(name)) = (
        active.numbers.ip_sets.get(lesson.ip_set),
        SniName::new(&lesson.name),
    ) else {
        return Ok(());
    };
    let mut learned = Learned {
        generation: active.numbers.generation,
        matched: Matched::Nothing as u8,
        pool_v4: NO_POOL,
        pool_v6: NO_POOL,
        hits,
        ..Learned::default()
    };
    if let Verdict::WrongProtocol(matched) = lesson.verdict {
        learned.matched = matched as u8;
        learned.flags = ROUTE_CONDITIONAL;
    }
    if let Verdict::Goes(decision) = lesson.verdict {
        let domain = |index: usize| active.config.domains.get(index);
        let (pool, action) = match decision.target {
            Target::Pool(pool) => (Some(pool), RouteAction::Pass),
            Target::Domain(index) => (
                domain(index).map(|domain| domain.pool.index()),
                domain(index).map_or(RouteAction::Pass, action),
            ),
        };
        learned.matched = decision.matched as u8;
        learned.action = action as u8;
        learned.route = decision.route;
        if decision.conditional {
            learned.flags |= ROUTE_CONDITIONAL;
        }
        if let Some(pool) = pool {
            if let Some([v4, v6]) = active.numbers.pools.get(pool) {
                (learned.pool_v4, learned.pool_v6) = (*v4, *v6);
            }
            let needs_agent = |pool| active.config.needs_agent(pool);
            if active.config.pools.get(pool).is_some_and(needs_agent) {
                learned.flags |= ROUTE_AGENT;
            }
        }
    }
    maps.learn(*ip_set, &name, learned, monotonic_ns())
}

fn action(domain: &Domain) -> RouteAction {
    match domain.terminate {
        Some(_) => RouteAction::Terminate,
        None => RouteAction::Pass,
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::{
        config::Config,
        edges::Edges,
        proxy::{Active, Numbers},
        tls::Store,
    };

    #[test]
    fn what_comes_together_is_one_lesson_for_each_name() {
        let config = Config::parse(
            Path::new("/snigate.toml"),
            "[gateway]\ninterfaces = [\"wan0\"]\n",
        );
        let config = config.unwrap_or_else(|found| panic!("{found}")).config;
        let (tls, _) = Store::load(&config, None).expect("no certificates");
        let active = Active::new(config, tls, Numbers::default(), &Edges::default());
        let active = Arc::new(active);
        let lesson = |ip_set, name: &str, verdict| Lesson {
            active: Arc::clone(&active),
            ip_set,
            name: name.to_owned(),
            verdict,
        };
        let heard = [
            lesson(0, "sip.fabrikam.example", Verdict::Unknown),
            lesson(1, "sip.fabrikam.example", Verdict::Unknown),
            lesson(0, "", Verdict::Unknown),
            lesson(
                0,
                "sip.fabrikam.example",
                Verdict::WrongProtocol(Matched::Exact),
            ),
        ];
        let merged: Vec<_> = by_name(heard.into_iter())
            .into_iter()
            .map(|(lesson, hits)| (lesson.ip_set, lesson.name, lesson.verdict, hits))
            .collect();
        let fabrikam = || String::from("sip.fabrikam.example");
        assert_eq!(
            merged,
            [
                (0, fabrikam(), Verdict::WrongProtocol(Matched::Exact), 2),
                (1, fabrikam(), Verdict::Unknown, 1),
                (0, String::new(), Verdict::Unknown, 1),
            ]
        );
    }
}
