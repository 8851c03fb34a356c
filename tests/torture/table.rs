//! What came of all runs of each scenario: the table at the end of `scripts/torture`.

use std::fmt;

use super::history::{Staleness, percentile};
use super::judging::Report;

struct Row {
    scenario: &'static str,
    seeds: Vec<u64>,
    operations: u64,
    refused: u64,
    violations: usize,
    staleness: Staleness,
}

#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    pub fn add(&mut self, report: &Report, seed: u64) {
        let verdict = &report.verdict;
        let i = self.0.iter().position(|row| row.scenario == report.name).unwrap_or_else(|| {
            let staleness = Staleness::default();
            self.0.push(Row {
                scenario: report.name,
                seeds: Vec::new(),
                operations: 0,
                refused: 0,
                violations: 0,
                staleness,
            });
            self.0.len() - 1
        });
        let row = &mut self.0[i];
        row.seeds.push(seed);
        row.operations += verdict.reads + verdict.writes + report.converged;
        row.refused += report.refused;
        row.violations += verdict.violations.len();
        row.staleness.extend(&verdict.staleness);
    }

    /// Everything in one row.
    fn all(&self) -> Row {
        let mut staleness = Staleness::default();
        self.0.iter().for_each(|row| staleness.extend(&row.staleness));
        let mut seeds: Vec<u64> = self.0.iter().flat_map(|row| row.seeds.clone()).collect();
        seeds.sort_unstable();
        seeds.dedup();
        Row {
            scenario: "all",
            seeds,
            operations: self.0.iter().map(|row| row.operations).sum(),
            refused: self.0.iter().map(|row| row.refused).sum(),
            violations: self.0.iter().map(|row| row.violations).sum(),
            staleness,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "errors: to clients of sidecars; stale after a write, p50/p99/max in ms (number): by another sidecar, by others, by the same"
        )?;
        writeln!(
            f,
            "| {:<34} | {:<21} | {:>10} | {:>7} | {:>10} | {:<30} | {:<30} | {:<22} |",
            "scenario",
            "seeds",
            "operations",
            "errors",
            "violations",
            "other sidecar",
            "foreign",
            "same sidecar"
        )?;
        writeln!(
            f,
            "|{}|{}|{}|{}|{}|{}|{}|{}|",
            "-".repeat(36),
            "-".repeat(23),
            "-".repeat(12),
            "-".repeat(9),
            "-".repeat(12),
            "-".repeat(32),
            "-".repeat(32),
            "-".repeat(24)
        )?;
        for row in self.0.iter().chain([&self.all()]) {
            let seeds = match row.seeds[..] {
                [] => String::new(),
                [only] => only.to_string(),
                [first, .., last] => format!("{first}..{last} ({})", row.seeds.len()),
            };
            write!(
                f,
                "| {:<34} | {seeds:<21} | {:>10} | {:>7} | {:>10} |",
                row.scenario, row.operations, row.refused, row.violations
            )?;
            let Staleness { other, foreign, same } = &row.staleness;
            writeln!(f, " {:<30} | {:<30} | {:<22} |", spread(other), spread(foreign), spread(same))?;
        }
        Ok(())
    }
}

/// Median, 99th percentile, longest, and how many.
pub fn spread(seen: &[u64]) -> String {
    let mut sorted = seen.to_vec();
    sorted.sort_unstable();
    let ms = |share| percentile(&sorted, share) as f64 / 1000.0;
    format!("{:.2}/{:.2}/{:.2} ({})", ms(0.5), ms(0.99), ms(1.0), sorted.len())
}

#[cfg(test)]
mod tests {
    use super::super::history::Verdict;
    use super::*;

    #[test]
    fn runs_of_a_scenario_add_up() {
        let report = |name, reads, stale: &[u64]| Report {
            name,
            verdict: Verdict {
                reads,
                writes: 1,
                staleness: Staleness { other: stale.to_vec(), ..Staleness::default() },
                ..Verdict::default()
            },
            errors: 0,
            refused: 2,
            converged: 10,
            hits: 0.5,
            seconds: 1.0,
        };
        let mut table = Table::default();
        table.add(&report("calm", 100, &[1000, 3000]), 7);
        table.add(&report("cut", 5, &[]), 7);
        table.add(&report("calm", 200, &[2000]), 8);
        let text = table.to_string();
        let row = |name: &str| text.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap();
        let words = |name| row(name).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            words("calm"),
            "| calm | 7..8 (2) | 322 | 4 | 0 | 2.00/3.00/3.00 (3) | 0.00/0.00/0.00 (0) | 0.00/0.00/0.00 (0) |"
        );
        assert!(words("cut").starts_with("| cut | 7 | 16 | 2 | 0 |"), "{text}");
        assert!(words("all").starts_with("| all | 7..8 (2) | 338 | 6 | 0 | 2.00/3.00/3.00 (3) |"), "{text}");
    }
}
