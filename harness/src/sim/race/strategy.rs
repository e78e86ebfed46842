//! Choosing who runs next.

use std::collections::HashMap;

use fastrand::Rng;

use super::schedule::{Lane, Schedule, Switch};
use crate::sim::agenda::Source;

/// How a race is led.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lead {
    /// Each worker runs for as long as it has something to do.
    Undisturbed,
    /// A strategy drawn by the seed: random choice at each point, random priorities that change at few points
    /// (probabilistic concurrency testing; Burckhardt and others, ASPLOS 2010), or round robin.
    Seed(u64),
    /// As a schedule says.
    Replay(Schedule),
}

/// Chooses at each point who runs next, and keeps what it chose.
pub(super) struct Scheduler {
    strategy: Strategy,
    random: Rng,
    /// How many steps each lane made.
    steps: HashMap<Option<Lane>, u32>,
    total: usize,
    taken: Schedule,
}

enum Strategy {
    Undisturbed,
    /// In so many of a hundred cases the lane goes on, else any lane runs.
    Random {
        stay: u32,
    },
    /// The lane of the highest priority runs; at each of the points, counted over all steps, the running lane's becomes
    /// the lowest.
    Priorities {
        points: Vec<usize>,
        of: HashMap<Lane, i64>,
        lowest: i64,
        /// How long the same lane has run while others could have.
        streak: usize,
    },
    /// After so many steps the next worker runs.
    RoundRobin {
        every: usize,
        streak: usize,
    },
    Replay(HashMap<(Option<Lane>, u32), Lane>),
}

/// The most changes of priority in a run. Most bugs need one or two.
const CHANGES: usize = 4;

/// A lane that spins until another one has done something must not keep it from doing so.
const PATIENCE: usize = 500;

impl Scheduler {
    pub(super) fn new(lead: &Lead) -> Self {
        let mut random = Rng::with_seed(0);
        let strategy = match lead {
            Lead::Undisturbed => Strategy::Undisturbed,
            Lead::Seed(seed) => {
                random = Rng::with_seed(*seed);
                Strategy::drawn(*seed, &mut random)
            }
            Lead::Replay(schedule) => Strategy::Replay(
                schedule
                    .0
                    .iter()
                    .map(|switch| ((switch.from, switch.step), switch.to))
                    .collect(),
            ),
        };
        Self {
            strategy,
            random,
            steps: HashMap::new(),
            total: 0,
            taken: Schedule::default(),
        }
    }

    /// What was chosen so far.
    pub(super) fn taken(&self) -> &Schedule {
        &self.taken
    }

    /// How many steps were made.
    pub(super) fn steps(&self) -> usize {
        self.total
    }

    /// Which of `candidates` makes its next step, after one of `current`; `None` when there is none.
    pub(super) fn choose(&mut self, current: Option<Lane>, candidates: &[Lane]) -> Option<Lane> {
        let usual = usual(current, candidates)?;
        let step = self.steps.get(&current).copied().unwrap_or(0);
        let chosen = if candidates.len() == 1 {
            usual
        } else {
            self.strategy.choose(
                &mut self.random,
                (current, step),
                candidates,
                usual,
                self.total,
            )
        };
        if chosen != usual {
            self.taken.0.push(Switch {
                from: current,
                step,
                to: chosen,
            });
        }
        *self.steps.entry(Some(chosen)).or_default() += 1;
        self.total += 1;
        Some(chosen)
    }
}

impl Strategy {
    fn drawn(seed: u64, random: &mut Rng) -> Self {
        match seed % 8 {
            0..=3 => Self::Random {
                stay: [0, 50, 80, 95][random.usize(..4)],
            },
            4..=6 => {
                // How long the run will be is not known: the points lie in a range of a random order of magnitude.
                let range = 1usize << random.u32(3..=10);
                let count = random.usize(..=CHANGES);
                Self::Priorities {
                    points: (0..count).map(|_| random.usize(..range)).collect(),
                    of: HashMap::new(),
                    lowest: 0,
                    streak: 0,
                }
            }
            _ => Self::RoundRobin {
                every: random.usize(1..=4),
                streak: 0,
            },
        }
    }

    fn choose(
        &mut self,
        random: &mut Rng,
        at: (Option<Lane>, u32),
        candidates: &[Lane],
        usual: Lane,
        total: usize,
    ) -> Lane {
        let (current, _) = at;
        match self {
            Self::Undisturbed => usual,
            Self::Replay(switches) => {
                let wanted = switches.get(&at).copied();
                wanted
                    .filter(|lane| candidates.contains(lane))
                    .unwrap_or(usual)
            }
            Self::Random { stay } => {
                if random.u32(..100) < *stay {
                    usual
                } else {
                    *random.choice(candidates).unwrap_or(&usual)
                }
            }
            Self::Priorities {
                points,
                of,
                lowest,
                streak,
            } => {
                for lane in candidates {
                    of.entry(*lane).or_insert_with(|| random.i64(1..));
                }
                if let Some(current) = current
                    && (points.contains(&total) || *streak >= PATIENCE)
                {
                    *lowest -= 1;
                    *streak = 0;
                    of.insert(current, *lowest);
                }
                let highest = candidates.iter().max_by_key(|lane| (of.get(lane), **lane));
                let chosen = *highest.unwrap_or(&usual);
                *streak = if Some(chosen) == current {
                    *streak + 1
                } else {
                    0
                };
                chosen
            }
            Self::RoundRobin { every, streak } => {
                *streak += 1;
                if *streak < *every {
                    return usual;
                }
                *streak = 0;
                let next = candidates
                    .iter()
                    .find(|lane| lane.worker() > current.and_then(Lane::worker));
                *next.or(candidates.first()).unwrap_or(&usual)
            }
        }
    }
}

/// Who runs if nothing disturbs: the lane that ran, else its worker, else the first.
fn usual(current: Option<Lane>, candidates: &[Lane]) -> Option<Lane> {
    if let Some(current) = current.filter(|lane| *lane != Lane::Clock && candidates.contains(lane))
    {
        return Some(current);
    }
    let worker = current.and_then(Lane::worker);
    // Time passes when there is nothing else to do, and a client says more when all that it has caused has happened.
    let rank = |lane: &Lane| match lane {
        Lane::Clock => 4,
        Lane::Worker(_, Source::Tick(_)) => 3,
        Lane::Worker(_, Source::Queue) => 2,
        Lane::Worker(_, Source::Client(_)) => 1,
        Lane::Worker(_, Source::Upstream(_) | Source::Call(_) | Source::Grpc(_)) => 0,
    };
    candidates
        .iter()
        .min_by_key(|lane| {
            (
                **lane == Lane::Clock,
                lane.worker() != worker,
                rank(lane),
                **lane,
            )
        })
        .copied()
}

#[cfg(test)]
mod tests {
    use super::{Lane, Lead, Scheduler};
    use crate::sim::agenda::Source;

    fn lane(worker: usize) -> Lane {
        Lane::Worker(worker, Source::Client(worker as u64))
    }

    /// Lets three lanes make so many steps each.
    fn run(lead: &Lead, steps: usize) -> (Vec<Lane>, Scheduler) {
        let mut scheduler = Scheduler::new(lead);
        let mut left = [steps; 3];
        let (mut current, mut ran) = (None, Vec::new());
        loop {
            let ready: Vec<_> = (0..3).filter(|n| left[*n] > 0).map(lane).collect();
            let Some(chosen) = scheduler.choose(current, &ready) else {
                return (ran, scheduler);
            };
            left[chosen.worker().unwrap()] -= 1;
            ran.push(chosen);
            current = Some(chosen);
        }
    }

    #[test]
    fn undisturbed_lanes_run_one_after_the_other_and_nothing_has_to_be_said() {
        let (ran, scheduler) = run(&Lead::Undisturbed, 2);
        assert_eq!(ran, [0, 0, 1, 1, 2, 2].map(lane));
        assert_eq!(scheduler.taken().switches(), 0);
    }

    #[test]
    fn what_a_seed_chose_is_replayed_from_its_schedule() {
        for seed in 0..200 {
            let (ran, scheduler) = run(&Lead::Seed(seed), 6);
            assert_eq!(ran.len(), 18);
            let text = scheduler.taken().to_string();
            let (again, _) = run(&Lead::Replay(text.parse().unwrap()), 6);
            assert_eq!(ran, again, "seed {seed}: {text}");
        }
    }

    #[test]
    fn every_order_is_reached() {
        let mut orders: Vec<_> = (0..20_000)
            .map(|seed| run(&Lead::Seed(seed), 2).0)
            .collect();
        orders.sort();
        orders.dedup();
        // Three lanes of two steps can go in 6! / (2! 2! 2!) ways.
        assert_eq!(orders.len(), 90);
    }
}
