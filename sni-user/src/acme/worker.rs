//! The agent's part: attempts when they are due, a few at a time, and rest for an authority that has enough or is down.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    select,
    sync::{Notify, watch},
    task::{JoinSet, spawn_blocking},
    time::{interval, sleep},
};

use super::{Attempt, Counts, Outcome, Trigger, Wanted, error::Kind, now, schedule};
use crate::config::{Acme, Config};

/// Orders at once. Each waits most of its time for the authority.
const AT_ONCE: usize = 4;
/// How often the certificates' files are looked at: changes on another machine's file system come without a word.
const LOOK: Duration = Duration::from_secs(60);
/// How often everything is looked at anew: the state directory may have been changed by another gateway or a command.
const ANEW: Duration = Duration::from_secs(3600);
/// Somebody else is at it; when to look what has come of it.
const BUSY: u64 = 30;

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plan {
    acme: Option<Acme>,
    wanted: Vec<Wanted>,
}

/// Sees to certificates for as long as it lives.
pub(crate) struct Worker {
    plan: watch::Sender<Plan>,
    task: tokio::task::JoinHandle<()>,
    changed: Arc<Notify>,
}

impl Worker {
    pub(crate) fn new(counts: Arc<Counts>) -> Self {
        let (plan, plans) = watch::channel(Plan::default());
        let changed = Arc::new(Notify::new());
        let work = Work {
            counts,
            changed: Arc::clone(&changed),
            entries: Vec::new(),
            attempt: None,
            trouble: 0,
            rest_until: 0,
            stamps: Vec::new(),
        };
        Self {
            plan,
            task: tokio::spawn(work.run(plans)),
            changed,
        }
    }

    /// Goes by this configuration from now on. What is under way for what is not wanted any more is broken off; its order stays.
    pub(crate) fn follow(&self, config: &Config) {
        let plan = Plan {
            acme: config.acme.clone(),
            wanted: super::wanted(config),
        };
        self.plan.send_if_modified(|current| {
            let differs = *current != plan;
            *current = plan;
            differs
        });
    }

    /// Waits until a certificate's file has changed. The kernel says so as well, unless it was on another machine.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Work {
    counts: Arc<Counts>,
    changed: Arc<Notify>,
    entries: Vec<Entry>,
    attempt: Option<Arc<Attempt>>,
    /// Attempts in a row that have failed because of the authority.
    trouble: u32,
    /// No attempt for anybody before this second since 1970.
    rest_until: u64,
    stamps: Vec<Option<SystemTime>>,
}

struct Entry {
    wanted: Wanted,
    /// The second since 1970 from which on an attempt is worth while.
    next: u64,
    under_way: bool,
    failing: bool,
}

type Running = JoinSet<(usize, Outcome)>;

impl Work {
    async fn run(mut self, mut plans: watch::Receiver<Plan>) {
        let mut running = Running::new();
        let mut look = interval(LOOK);
        let mut anew = interval(ANEW);
        let plan = plans.borrow_and_update().clone();
        self.begin(plan).await;
        loop {
            let due = self.start(&mut running);
            select! {
                changed = plans.changed() => {
                    // Whoever plans is gone.
                    if changed.is_err() {
                        return;
                    }
                    running.shutdown().await;
                    let plan = plans.borrow_and_update().clone();
                    self.begin(plan).await;
                }
                Some(ended) = running.join_next() => match ended {
                    Ok((place, outcome)) => self.ended(place, &outcome).await,
                    Err(panic) => {
                        tracing::error!(%panic, "an attempt to get a certificate has broken off");
                        self.forget_under_way(&mut running).await;
                    }
                },
                _ = look.tick() => self.look().await,
                _ = anew.tick() => self.plan_anew().await,
                () = due => {}
            }
        }
    }

    async fn begin(&mut self, plan: Plan) {
        let same = |attempt: &Arc<Attempt>| Some(&attempt.acme) == plan.acme.as_ref();
        if !self.attempt.as_ref().is_some_and(same) {
            // Another authority, or another account: what was wrong with the one before says nothing.
            (self.trouble, self.rest_until) = (0, 0);
            self.attempt = plan.acme.map(|acme| Arc::new(Attempt::new(acme)));
        }
        let entry = |wanted| Entry {
            wanted,
            next: 0,
            under_way: false,
            failing: false,
        };
        self.entries = plan.wanted.into_iter().map(entry).collect();
        self.stamps.clear();
        self.plan_anew().await;
        self.look().await;
    }

    /// Starts what is due, as far as there is room; the future ends when there may be more to start.
    fn start(&mut self, running: &mut Running) -> impl Future<Output = ()> + use<> {
        let now = now();
        if let Some(attempt) = &self.attempt {
            for (place, entry) in self.entries.iter_mut().enumerate() {
                // While the authority is in trouble, one attempt at a time finds out whether it still is.
                let at_once = if self.trouble > 0 { 1 } else { AT_ONCE };
                if running.len() >= at_once || self.rest_until > now {
                    break;
                }
                if entry.under_way || entry.next > now {
                    continue;
                }
                entry.under_way = true;
                let (attempt, wanted) = (Arc::clone(attempt), entry.wanted.clone());
                running.spawn(async move {
                    let outcome = attempt.make(&wanted, Trigger::WhenDue).await;
                    (place, outcome)
                });
            }
        }
        let waiting = self.entries.iter().filter(|entry| !entry.under_way);
        let next = waiting.map(|entry| entry.next.max(self.rest_until)).min();
        // With everything under way, or no room for what is due, the end of an attempt is waited for.
        let wait = next.filter(|next| *next > now).map(|next| next - now);
        async move {
            match wait {
                // Clocks are set: not longer than the next look at everything.
                Some(seconds) => sleep(Duration::from_secs(seconds).min(ANEW)).await,
                None => std::future::pending().await,
            }
        }
    }

    async fn ended(&mut self, place: usize, outcome: &Outcome) {
        self.counts.attempt(outcome);
        let Some(entry) = self.entries.get_mut(place) else {
            return;
        };
        entry.under_way = false;
        let domain = entry.wanted.sip_domain.clone();
        match outcome {
            Outcome::Issued { renewal } => {
                self.trouble = 0;
                entry.failing = false;
                let what = if *renewal { "renewed" } else { "issued" };
                tracing::info!(%domain, file = %entry.wanted.file.display(), "the certificate was {what}");
            }
            Outcome::Failed { error, until } => {
                entry.failing = error.kind() != Kind::Pending;
                let again = until.saturating_sub(now());
                tracing::warn!(%domain, %error, again_in_s = again, "no certificate for the domain yet");
                if matches!(error.kind(), Kind::Unreachable | Kind::RateLimited) {
                    self.trouble = self.trouble.saturating_add(1);
                    let pause = schedule::pause(error.kind(), self.trouble, None).as_secs();
                    // The longer of its advice and ours, where it has told to slow down; when it is down, it may be back any time.
                    self.rest_until = match error.kind() {
                        Kind::RateLimited => *until,
                        _ => now() + pause,
                    };
                } else {
                    self.trouble = 0;
                }
            }
            Outcome::Busy | Outcome::NotDue | Outcome::Paused { .. } => {}
        }
        let next = match outcome {
            Outcome::Busy => now() + BUSY,
            Outcome::Failed { until, .. } | Outcome::Paused { until, .. } => *until,
            Outcome::Issued { .. } | Outcome::NotDue => self.next_of(place).await,
        };
        self.entries[place].next = next;
        self.count().await;
    }

    /// A certificate that is due again at once, or that is not what was asked for, is not asked for in a circle.
    async fn next_of(&self, place: usize) -> u64 {
        let (Some(attempt), Some(entry)) = (self.attempt.clone(), self.entries.get(place)) else {
            return u64::MAX;
        };
        let wanted = entry.wanted.clone();
        let next = spawn_blocking(move || attempt.next(&wanted)).await;
        next.unwrap_or(0).max(now() + BUSY)
    }

    async fn plan_anew(&mut self) {
        let Some(attempt) = self.attempt.clone() else {
            return;
        };
        let wanted: Vec<_> = self.entries.iter().map(|it| it.wanted.clone()).collect();
        // Thousands of files.
        let next = spawn_blocking(move || {
            let next = wanted.iter().map(|wanted| attempt.next(wanted));
            next.collect::<Vec<_>>()
        });
        for (entry, next) in self.entries.iter_mut().zip(next.await.unwrap_or_default()) {
            if !entry.under_way {
                entry.next = next;
            }
        }
        self.count().await;
    }

    async fn look(&mut self) {
        let files: Vec<PathBuf> = self
            .entries
            .iter()
            .map(|it| it.wanted.file.clone())
            .collect();
        let stamp = |file: &PathBuf| std::fs::metadata(file).and_then(|it| it.modified()).ok();
        let stamps = spawn_blocking(move || files.iter().map(stamp).collect::<Vec<_>>());
        let stamps = stamps.await.unwrap_or_default();
        let before = std::mem::replace(&mut self.stamps, stamps);
        if !before.is_empty() && before != self.stamps {
            self.changed.notify_one();
        }
    }

    async fn count(&self) {
        let files: Vec<_> = self
            .entries
            .iter()
            .map(|it| it.wanted.file.clone())
            .collect();
        let there = spawn_blocking(move || files.iter().map(|it| it.exists()).collect::<Vec<_>>());
        let there = there.await.unwrap_or_default();
        let (mut current, mut missing) = (0, 0);
        for is_there in there {
            *(if is_there { &mut current } else { &mut missing }) += 1;
        }
        let failing = self.entries.iter().filter(|entry| entry.failing).count();
        self.counts.states([current, missing, failing]);
    }

    async fn forget_under_way(&mut self, running: &mut Running) {
        running.shutdown().await;
        let again = now() + BUSY;
        for entry in self.entries.iter_mut().filter(|entry| entry.under_way) {
            entry.under_way = false;
            entry.next = again;
        }
    }
}
