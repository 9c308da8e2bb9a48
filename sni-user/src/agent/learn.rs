//! SNI_LEARNED: what came of the server names that clients asked for.

use std::thread;

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

/// Writes what there is to learn, in a thread of its own: each lesson is two system calls. It ends with the proxy.
pub(super) fn start(mut lessons: mpsc::Receiver<Lesson>, mut maps: Maps) {
    thread::spawn(move || {
        let mut failing = false;
        while let Some(lesson) = lessons.blocking_recv() {
            let learned = learn(&mut maps, &lesson);
            if let Err(error) = &learned
                && !failing
            {
                tracing::error!(%error, "server names can't be learned; connections are routed all the same");
            }
            failing = learned.is_err();
        }
    });
}

fn learn(maps: &mut Maps, lesson: &Lesson) -> Result<(), DatapathError> {
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
