//! Measures the CPU that a request costs a real Envoy: without filters, with one that does nothing, with each of Tollgate's, and three header
//! rules by Envoy's own filters. Requests without a body go to all; chat requests, whole and streamed, to those that read them.
//!
//! All run in one Envoy with one worker, in interleaved rounds, so that what else happens on the machine hits all
//! alike; the medians are printed. CPU time, not latency: it is what an operator pays, and it depends less on the load
//! generator, which takes its share of the same machine.

mod contenders;
mod load;

use std::fs;

use anyhow::Context;
use contenders::Contender;
use load::Load;
use tollgate_harness::envoy::{self, Besides, Envoy, Listener};
use tollgate_harness::mock_llm::{MockLlm, Settings};
use tollgate_harness::wire::Recorder;

/// Rounds that count. One more goes before them, to warm up.
const ROUNDS: usize = 5;

/// What the kernel counts CPU time in, as it tells programs (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> anyhow::Result<()> {
    let upstream = Recorder::start()?;
    let provider = MockLlm::start(Settings::default())?;
    let contenders: Vec<Contender> = Load::ALL
        .into_iter()
        .flat_map(contenders::contenders)
        .collect();
    let listeners: Vec<Listener> = contenders
        .iter()
        .map(|contender| Listener {
            name: contender.listener(),
            filters: contender.filters.clone(),
            upstream: match contender.load {
                Load::Get => upstream.address(),
                Load::Chat | Load::Stream => provider.address(),
            },
            proxy_protocol: false,
        })
        .collect();
    let besides = Besides {
        native: contenders::native(),
        ..Besides::default()
    };
    let envoy = Envoy::start_with(&envoy::find()?, &listeners, 1, &besides)?;
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for round in 0..=ROUNDS {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            let before = cpu_seconds(envoy.process_id())?;
            contender.load.send(envoy.address(&contender.listener())?)?;
            let spent = cpu_seconds(envoy.process_id())? - before;
            drop(upstream.take_seen());
            if round > 0 {
                samples.push(spent * 1e6 / contender.load.requests() as f64);
            }
        }
    }
    println!("CPU a request on Envoy 1.40, one worker: medians of {ROUNDS} rounds, in us");
    let mut rows: Vec<_> = contenders.iter().zip(samples).collect();
    for load in Load::ALL {
        let count = rows.iter().filter(|(row, _)| row.load == load).count();
        print(load, &mut rows.drain(..count).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// The CPU time of a process so far, user and system.
fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may hold anything; the times are the 12th and 13th field behind it.
    let (_, fields) = stat.rsplit_once(") ").context("no process name in /proc")?;
    let mut ticks = fields.split(' ').skip(11);
    let mut next =
        || -> anyhow::Result<f64> { Ok(ticks.next().context("no CPU time in /proc")?.parse()?) };
    Ok((next()? + next()?) / TICKS_PER_SECOND)
}

/// The rows of one load, of which the first has no filter and the second one that does nothing.
fn print(load: Load, rows: &mut [(&Contender, Vec<f64>)]) -> anyhow::Result<()> {
    let mut medians = Vec::new();
    for (_, sample) in rows.iter_mut() {
        sample.sort_by(f64::total_cmp);
        medians.push(*sample.get(ROUNDS / 2).context("no samples")?);
    }
    let baseline = *medians.first().context("nothing compared")?;
    let noop = *medians.get(1).context("no no-op filter")?;
    println!();
    println!("{}, {} a round", load.title(), load.requests());
    println!(
        "{:<28} {:>8} {:>17} {:>12} {:>12}",
        "", "median", "lowest-highest", "to no filter", "to no-op"
    );
    for ((contender, sample), median) in rows.iter().zip(&medians) {
        let (low, high) = (
            sample.first().context("no samples")?,
            sample.last().context("no samples")?,
        );
        println!(
            "{:<28} {median:>8.1} {:>17} {:>+12.1} {:>+12.1}",
            contender.name,
            format!("{low:.1}-{high:.1}"),
            median - baseline,
            median - noop
        );
    }
    Ok(())
}
