use std::fmt::Write;

use clap::Args;
use tollgate_harness::profile::{Difference, Proof, Seen, Source, Topic, differences};

use super::{Failure, Outcome};

const EXAMPLES: &str = "\
Examples:
  tollgate hosts
  tollgate hosts shared-data-cas-zero
  tollgate hosts --topic calls --json | jq .[].id

`running` was seen on that host: Envoy 1.40, or nginx 1.27 with ngx_wasm_module; `source` was read in
its code. A row that says `no filter can observe it` has its reason instead of a test.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Only the row of this id
    id: Option<String>,
    /// Only the rows of this topic, such as calls or shared-data
    #[arg(long, conflicts_with = "id")]
    topic: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(self) -> Result<Outcome, Failure> {
        let rows: Vec<&Difference> = match (&self.id, &self.topic) {
            (Some(id), _) => vec![named(id)?],
            (None, Some(topic)) => of_topic(topic)?,
            (None, None) => differences().collect(),
        };
        if self.json {
            println!(
                "{}",
                serde_json::to_string_pretty(&rows).map_err(Failure::run)?
            );
        } else {
            print!("{}", table(&rows));
        }
        Ok(Outcome::Fine)
    }
}

fn named(id: &str) -> Result<&'static Difference, Failure> {
    Difference::named(id).ok_or_else(|| {
        let near: Vec<_> = differences()
            .map(|row| row.id)
            .filter(|known| known.contains(id))
            .collect();
        let hint = if near.is_empty() {
            "`tollgate hosts` lists them".to_owned()
        } else {
            format!("did you mean {}?", near.join(" or "))
        };
        Failure::input(anyhow::anyhow!("no row has the id {id}: {hint}"))
    })
}

/// A topic as one writes it: `shared-data` and `shared data` are the same.
fn spelt(topic: Topic) -> String {
    topic.to_string().replace(' ', "-")
}

fn of_topic(topic: &str) -> Result<Vec<&'static Difference>, Failure> {
    let wanted = topic.replace(' ', "-");
    let rows: Vec<_> = differences()
        .filter(|row| spelt(row.topic) == wanted)
        .collect();
    if !rows.is_empty() {
        return Ok(rows);
    }
    let mut topics: Vec<_> = differences().map(|row| spelt(row.topic)).collect();
    topics.sort_unstable();
    topics.dedup();
    Err(Failure::input(anyhow::anyhow!(
        "no topic is called {topic}: use one of {}",
        topics.join(", ")
    )))
}

fn table(rows: &[&Difference]) -> String {
    let mut out = String::new();
    let mut topic = None;
    for row in rows {
        if topic.replace(row.topic) != Some(row.topic) {
            // Writing to a string can't fail.
            let _ = writeln!(out, "{}\n", spelt(row.topic).to_uppercase());
        }
        let _ = writeln!(out, "{}: {}", row.id, row.act);
        if let Some(spec) = row.spec {
            let _ = writeln!(out, "  spec   {spec}");
        }
        line(&mut out, "envoy", row.envoy);
        line(&mut out, "kong", row.kong);
        if let Proof::Unobserved(why) = row.proof {
            let _ = writeln!(out, "  no filter can observe it: {why}");
        }
        let _ = writeln!(out);
    }
    out
}

fn line(out: &mut String, host: &str, seen: Seen) {
    let source = match seen.source {
        Source::Running => "running",
        Source::Source => "source",
    };
    let _ = writeln!(out, "  {host:<6} {} [{source}]", seen.does);
}
