//! What a run has to say: each failure with what was expected and what came, the skips by reason, and the totals.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::case::Basis;
use super::matcher::Mismatch;

/// The result of a whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whose behaviour the host showed.
    pub(crate) profile: &'static str,
    /// What the cases ran on.
    pub(crate) host: &'static str,
    /// Whether Kong's behaviour was asked for to the letter.
    pub(crate) compat: bool,
    /// How many cases came out as expected.
    pub(crate) passed: usize,
    /// How many did not.
    pub(crate) failed: usize,
    /// How many were not run, or deviate on purpose.
    pub(crate) skipped: usize,
    /// Every case.
    pub(crate) cases: Vec<Verdict>,
}

/// The result of one case.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    /// The case.
    pub(crate) id: String,
    /// What it shows.
    pub(crate) title: String,
    /// What its expectation rests on.
    pub(crate) source: String,
    /// Whether one of Kong's own tests asserts it.
    pub(crate) basis: Basis,
    /// Advice to whoever implements it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) notes: Option<String>,
    /// How it came out.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// How a case came out.
#[derive(Debug, Serialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As expected.
    Passed,
    /// Otherwise.
    Failed {
        /// What was wrong.
        failures: Vec<Failure>,
    },
    /// Not run.
    Skipped {
        /// Why.
        reason: String,
    },
    /// Otherwise, on purpose.
    Deviates {
        /// Why it is better so.
        reason: String,
    },
}

/// One way in which a case failed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    /// Where: the step and the delivery, or the configuration.
    pub(crate) at: String,
    /// What was wrong there.
    #[serde(flatten)]
    pub(crate) cause: Cause,
}

/// What was wrong.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Cause {
    /// Something was not as expected.
    Mismatches(Vec<Mismatch>),
    /// The case could not run to its end.
    Error(String),
}

impl Report {
    /// A report with its totals.
    pub(crate) fn new(
        profile: &'static str,
        host: &'static str,
        compat: bool,
        cases: Vec<Verdict>,
    ) -> Self {
        let count = |wanted: fn(&Outcome) -> bool| {
            cases
                .iter()
                .filter(|verdict| wanted(&verdict.outcome))
                .count()
        };
        Self {
            profile,
            host,
            compat,
            passed: count(|outcome| matches!(outcome, Outcome::Passed)),
            failed: count(|outcome| matches!(outcome, Outcome::Failed { .. })),
            skipped: count(|outcome| {
                matches!(outcome, Outcome::Skipped { .. } | Outcome::Deviates { .. })
            }),
            cases,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compat = if self.compat {
            "compat: kong"
        } else {
            "without compat"
        };
        writeln!(f, "{} profile on {}, {compat}", self.profile, self.host)?;
        let mut skips: BTreeMap<&str, usize> = BTreeMap::new();
        for verdict in &self.cases {
            match &verdict.outcome {
                Outcome::Passed => {}
                Outcome::Failed { failures } => write_failed(f, verdict, failures)?,
                Outcome::Skipped { reason } => *skips.entry(reason).or_default() += 1,
                Outcome::Deviates { reason } => writeln!(f, "deviates: {}: {reason}", verdict.id)?,
            }
        }
        for (reason, count) in skips {
            writeln!(f, "skipped: {count} x {reason}")?;
        }
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

fn write_failed(
    f: &mut fmt::Formatter<'_>,
    verdict: &Verdict,
    failures: &[Failure],
) -> fmt::Result {
    writeln!(
        f,
        "FAILED {} ({}; from {})",
        verdict.id, verdict.title, verdict.source
    )?;
    if let Some(notes) = &verdict.notes {
        writeln!(f, "  note: {notes}")?;
    }
    for failure in failures {
        writeln!(f, "  {}", failure.at)?;
        match &failure.cause {
            Cause::Error(error) => writeln!(f, "    {error}")?,
            Cause::Mismatches(mismatches) => {
                for mismatch in mismatches {
                    writeln!(f, "    {}", mismatch.what)?;
                    writeln!(f, "      expected {}", mismatch.expected)?;
                    writeln!(f, "      got      {}", mismatch.got)?;
                }
            }
        }
    }
    Ok(())
}
