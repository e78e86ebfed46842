//! Workers that race for shared state: what the explorer finds, what it shows of it, and what it does not accuse.

mod guest;

use std::collections::BTreeSet;
use std::time::Duration;

use guest::Guest;
use serde_json::json;
use tollgate_harness::engine::Module;
use tollgate_harness::profile::Profile;
use tollgate_harness::shared::Operation;
use tollgate_harness::sim::race::{self, Counterexample, Lead, Race, RaceSetting, Schedule};
use tollgate_harness::sim::{Answer, Request, Sim};

/// Counts its requests under `n` in shared data: `$add` is how.
fn counter(add: &str) -> Module {
    let mut guest = Guest::new();
    let key = guest.text("n");
    let get = format!("(call $get_shared {key} (i32.const 16) (i32.const 20) (i32.const 24))");
    let set =
        format!("(call $set_shared {key} (i32.const 80) (i32.const 1) (i32.load (i32.const 24)))");
    let add = add.replace("GET", &get).replace("SET", &set);
    let guest = guest
        .with(&format!("(func $add (local $n i32) {add} (call $fresh))"))
        .on("request_headers", "(call $add)");
    guest.module()
}

/// Writes whatever was written in between.
const CARELESS: &str = "
    (if (i32.eqz GET) (then (local.set $n (i32.load8_u (i32.load (i32.const 16))))))
    (i32.store8 (i32.const 80) (i32.add (local.get $n) (i32.const 1)))
    (i32.store (i32.const 24) (i32.const 0))
    (drop SET)";

/// Begins again when something was. What is not there is made with the largest number, as Envoy wants it.
const CAREFUL: &str = "
    (loop $again
      (if GET
        (then (local.set $n (i32.const 0)) (i32.store (i32.const 24) (i32.const -1)))
        (else (local.set $n (i32.load8_u (i32.load (i32.const 16))))))
      (i32.store8 (i32.const 80) (i32.add (local.get $n) (i32.const 1)))
      (br_if $again SET))";

fn workers(module: &Module, count: usize) -> RaceSetting {
    Sim::of(Profile::Envoy)
        .filter(module, json!({}))
        .workers(count)
}

/// A request to each of four workers, and all of them are counted.
fn all_are_counted(race: &mut Race) {
    for worker in 0..4 {
        race.spawn(worker, Request::get("/"));
    }
    race.run();
    assert!(race.responses().iter().all(|got| got.status() == 200));
    assert_eq!(race.shared().value("n"), Some(vec![4]));
}

fn lost_update() -> (Module, Counterexample) {
    let module = counter(CARELESS);
    let found = race::explore(0..1000, || workers(&module, 4), all_are_counted);
    (module, *found.expect_err("an update is lost"))
}

#[test]
fn a_lost_update_is_found_and_shrunk_to_its_one_switch() {
    let (_, found) = lost_update();
    println!("{found}");
    assert_eq!(found.schedule.switches(), 1, "{found}");
    assert_eq!(found.trace.matches('*').count(), 1, "{found}");
    assert!(found.trace.contains("get \"n\": there is none"), "{found}");
    let report = found.to_string();
    assert!(report.contains("TOLLGATE_SEED="), "{report}");
    assert!(report.contains(&format!("TOLLGATE_SCHEDULE=\"{}\"", found.schedule)));
}

#[test]
fn what_was_found_happens_again_by_its_schedule_and_by_its_seed() {
    let (module, found) = lost_update();
    let schedule: Schedule = found.schedule.to_string().parse().unwrap();
    let mut race = workers(&module, 4)
        .led_by(Lead::Replay(schedule))
        .start()
        .unwrap();
    for worker in 0..4 {
        race.spawn(worker, Request::get("/"));
    }
    race.run();
    assert_eq!(race.trace(), found.trace);
    assert_ne!(race.shared().value("n"), Some(vec![4]));
    let seed = found.seed.unwrap();
    let again = race::explore([seed], || workers(&module, 4), all_are_counted).unwrap_err();
    assert_eq!(again.schedule, found.schedule);
    assert_eq!(again.message, found.message);
}

#[test]
fn nothing_is_lost_with_compare_and_set_in_ten_thousand_schedules() {
    let module = counter(CAREFUL);
    let explored = race::check(0..10_000, || workers(&module, 4), all_are_counted);
    println!("{explored:?}");
    assert_eq!(explored.schedules, 10_000);
    assert!(explored.preemptions > 10_000, "{explored:?}");
}

#[test]
fn a_seed_gives_the_same_trace_each_time_and_others_give_others() {
    let module = counter(CAREFUL);
    let trace = |seed| {
        let mut race = workers(&module, 3)
            .led_by(Lead::Seed(seed))
            .start()
            .unwrap();
        for number in 0..6 {
            let request = Request::post("/").body("hello").delivered_in(&[2]);
            race.spawn(number % 3, request.paced(Duration::from_millis(1)));
        }
        race.run();
        race.trace()
    };
    let traces: BTreeSet<_> = (0..64)
        .map(|seed| {
            let first = trace(seed);
            assert_eq!(first, trace(seed), "seed {seed}");
            first
        })
        .collect();
    assert!(traces.len() > 50, "{}", traces.len());
}

/// All values that `n` has after a race, over many schedules.
fn outcomes(setting: impl Fn() -> RaceSetting, scenario: impl Fn(&mut Race)) -> BTreeSet<u8> {
    let seen = std::cell::RefCell::new(BTreeSet::new());
    race::check(0..200, setting, |race| {
        scenario(race);
        let value = race.shared().value("n").unwrap_or_default();
        seen.borrow_mut().extend(value.first());
    });
    seen.into_inner()
}

#[test]
fn ticks_that_are_due_at_the_same_moment_come_in_any_order() {
    let mut guest = Guest::new();
    let key = guest.text("n");
    // The last one to tick leaves its number, which it has from its clock's jump when it was configured: the workers
    // are told apart by who registered first.
    let guest = guest
        .with("(global $me (mut i32) (i32.const 0))")
        .on(
            "configure",
            &format!(
                "(drop (call $tick (i32.const 10)))
                 (if (i32.eqz (call $get_shared {key} (i32.const 16) (i32.const 20) (i32.const 24)))
                   (then (global.set $me (i32.add (i32.load8_u (i32.load (i32.const 16))) (i32.const 1)))))
                 (i32.store8 (i32.const 80) (global.get $me))
                 (drop (call $set_shared {key} (i32.const 80) (i32.const 1) (i32.const 0)))"
            ),
        )
        .on(
            "tick",
            &format!(
                "(i32.store8 (i32.const 80) (global.get $me))
                 (drop (call $set_shared {key} (i32.const 80) (i32.const 1) (i32.const 0)))"
            ),
        );
    let module = guest.module();
    let last = outcomes(
        || workers(&module, 3),
        |race| race.run_for(Duration::from_millis(10)),
    );
    assert_eq!(last, BTreeSet::from([0, 1, 2]));
}

#[test]
fn a_window_may_end_in_the_middle_of_a_callback_only_where_workers_stall() {
    let mut guest = Guest::new();
    let key = guest.text("n");
    // How many of the two readings of the clock in one callback differ: time passes between them or it does not.
    let guest = guest.on(
        "request_headers",
        &format!(
            "(drop (call $time (i32.const 32)))
             (drop (call $get_shared {key} (i32.const 16) (i32.const 20) (i32.const 24)))
             (drop (call $time (i32.const 40)))
             (i32.store8 (i32.const 80) (i64.ne (i64.load (i32.const 32)) (i64.load (i32.const 40))))
             (drop (call $set_shared {key} (i32.const 80) (i32.const 1) (i32.const 0)))"
        ),
    );
    let module = guest.module();
    let two = |race: &mut Race| {
        race.spawn(0, Request::get("/"));
        race.spawn(1, Request::get("/").after(Duration::from_secs(1)));
        race.run();
    };
    assert_eq!(outcomes(|| workers(&module, 2), two), BTreeSet::from([0]));
    assert_eq!(
        outcomes(|| workers(&module, 2).stalls(), two),
        BTreeSet::from([0, 1])
    );
}

#[test]
fn a_reader_on_another_worker_is_told_of_each_item_at_any_moment_after_it_came() {
    let mut guest = Guest::new();
    let (jobs, done, key) = (guest.text("jobs"), guest.text("done"), guest.text("n"));
    // All workers register: the last reads. At the headers an item goes in, at the body `n` is how many were taken out.
    let taken = format!(
        "(if (i32.eqz (call $get_shared {done} (i32.const 16) (i32.const 20) (i32.const 24)))
           (then (local.set $t (i32.load8_u (i32.load (i32.const 16))))))"
    );
    let guest = guest
        .with(&format!(
            "(func $taken (result i32) (local $t i32) {taken} (call $fresh) (local.get $t))"
        ))
        .on(
            "configure",
            &format!("(drop (call $register {jobs} (i32.const 32)))"),
        )
        .on(
            "request_headers",
            "(drop (call $enqueue (i32.load (i32.const 32)) (i32.const 1024) (i32.const 1)))",
        )
        .on(
            "request_body",
            &format!(
                "(i32.store8 (i32.const 80) (call $taken))
                 (drop (call $set_shared {key} (i32.const 80) (i32.const 1) (i32.const 0)))"
            ),
        )
        .on(
            "queue_ready",
            &format!(
                "(if (i32.eqz (call $dequeue (local.get $n) (i32.const 16) (i32.const 20)))
                   (then
                     (i32.store8 (i32.const 80) (i32.add (call $taken) (i32.const 1)))
                     (drop (call $set_shared {done} (i32.const 80) (i32.const 1) (i32.const 0)))))"
            ),
        );
    let module = guest.module();
    let seen = outcomes(
        || workers(&module, 3),
        |race| {
            race.spawn(0, Request::post("/").body("x").delivered_in(&[1]));
            race.spawn(1, Request::get("/"));
            race.run();
            assert_eq!(race.shared().value("done"), Some(vec![2]), "each once");
            let readers = race
                .steps()
                .into_iter()
                .filter_map(|step| match step.operation()? {
                    (Operation::Pop { .. }, _) => step.worker(),
                    _ => None,
                });
            assert_eq!(readers.collect::<Vec<_>>(), [2, 2]);
        },
    );
    assert_eq!(seen, BTreeSet::from([0, 1, 2]));
}

#[test]
fn a_filter_that_goes_round_in_circles_is_told_from_one_that_waits() {
    let mut guest = Guest::new();
    let key = guest.text("n");
    let spin = format!(
        "(loop $again
           (br_if $again (call $get_shared {key} (i32.const 16) (i32.const 20) (i32.const 24))))"
    );
    let module = guest.on("request_headers", &spin).module();
    let found = race::explore(
        0..1,
        || workers(&module, 2).steps(500),
        |race| {
            race.spawn(0, Request::get("/"));
            race.run();
        },
    );
    // Nobody ever sets what it waits for.
    let found = found.unwrap_err();
    assert!(
        found.message.contains("not ended after 500 steps"),
        "{found}"
    );
    assert_eq!(found.schedule.switches(), 0);
}

#[test]
fn what_a_script_refuses_fails_the_race() {
    let module = Guest::new().module();
    let found = race::explore(
        0..1,
        || workers(&module, 2),
        |race| {
            race.upstream(|request| {
                assert_eq!(request.path, "/good");
                Answer::status(200)
            });
            race.spawn(1, Request::get("/bad"));
            race.run();
        },
    );
    assert!(found.unwrap_err().message.contains("/good"));
}
