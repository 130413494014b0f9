//! The figures as a table and as JSON.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// The middle value; 0 of none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The value that so many percent of them do not exceed; 0 of none.
fn percentile<'a>(samples: impl IntoIterator<Item = &'a f64>, percent: f64) -> f64 {
    let mut sorted: Vec<f64> = samples.into_iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    // A fraction of a sample more or less does not count.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let index = (sorted.len() as f64 * percent / 100.0) as usize;
    sorted
        .get(index.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// One figure.
#[derive(Serialize)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// The smallest and the largest of the rounds.
    range: Option<(f64, f64)>,
    /// What a ratio is meant to be at least, or at most.
    goal: Option<f64>,
    reached: Option<bool>,
}

impl Figure {
    pub(crate) fn bytes(name: &str, bytes: u64) -> Self {
        Self::new(name, bytes as f64 / 1048576.0, "MiB")
    }

    fn new(name: &str, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            value,
            unit,
            range: None,
            goal: None,
            reached: None,
        }
    }
}

/// All figures of a part.
#[derive(Serialize)]
pub(crate) struct Report {
    setting: String,
    cpu_model: String,
    kernel: String,
    figures: Vec<Figure>,
}

impl Report {
    /// Of what was measured in such a setting.
    pub(crate) fn new(setting: String) -> Self {
        let first_line = |path: &str, key: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let line = text
                .lines()
                .find(|line| line.starts_with(key))
                .unwrap_or_default();
            line.rsplit(": ").next().unwrap_or_default().to_owned()
        };
        Self {
            setting,
            cpu_model: first_line("/proc/cpuinfo", "model name"),
            kernel: first_line("/proc/sys/kernel/osrelease", ""),
            figures: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    fn measured(&mut self, name: &str, samples: &[f64], scale: f64, unit: &'static str) -> f64 {
        self.told(name, (median(samples), samples), scale, unit)
    }

    /// A value, and the samples whose range is told with it.
    fn told(
        &mut self,
        name: &str,
        (value, samples): (f64, &[f64]),
        scale: f64,
        unit: &'static str,
    ) -> f64 {
        let smallest = samples.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = samples.iter().copied().fold(0.0, f64::max);
        self.add(Figure {
            range: Some((smallest * scale, largest * scale)),
            ..Figure::new(name, value * scale, unit)
        });
        value
    }

    /// Bytes a second.
    pub(crate) fn rate(&mut self, name: &str, samples: Vec<f64>) -> f64 {
        self.measured(name, &samples, 1e-6, "MB/s")
    }

    /// Seconds.
    pub(crate) fn time(&mut self, name: &str, samples: Vec<f64>) -> f64 {
        self.measured(name, &samples, 1e3, "ms")
    }

    /// Seconds that so many percent of all samples do not exceed; the range is that of the slices.
    pub(crate) fn percentile(&mut self, name: &str, slices: &[Vec<f64>], percent: f64) -> f64 {
        let each: Vec<f64> = slices
            .iter()
            .map(|slice| percentile(slice, percent))
            .collect();
        let value = percentile(slices.iter().flatten(), percent);
        self.told(name, (value, &each), 1e3, "ms")
    }

    /// How many there were of what there must be none.
    pub(crate) fn none(&mut self, name: &str, count: usize) {
        self.add(Figure {
            goal: Some(0.0),
            reached: Some(count == 0),
            ..Figure::new(name, count as f64, "")
        });
    }

    /// Calls a second.
    pub(crate) fn calls(&mut self, name: &str, samples: Vec<f64>) -> f64 {
        self.measured(name, &samples, 1.0, "calls/s")
    }

    /// A ratio, and what it is meant to be.
    pub(crate) fn ratio(&mut self, name: &str, value: f64, goal: f64, at_least: bool) {
        self.add(Figure {
            goal: Some(goal),
            reached: Some(if at_least {
                value >= goal
            } else {
                value <= goal
            }),
            ..Figure::new(
                name,
                value,
                if at_least {
                    "x (at least)"
                } else {
                    "x (at most)"
                },
            )
        });
    }

    /// A ratio that is told and has no goal.
    pub(crate) fn compare(&mut self, name: &str, value: f64) {
        self.add(Figure::new(name, value, "x"));
    }

    pub(crate) fn print(&self) {
        println!(
            "\n{}, on {} (kernel {})\n",
            self.setting, self.cpu_model, self.kernel
        );
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["figure", "median", "unit", "lowest", "highest", "goal", ""]);
        for figure in &self.figures {
            let range = |pick: fn((f64, f64)) -> f64| {
                figure
                    .range
                    .map(|range| format!("{:.2}", pick(range)))
                    .unwrap_or_default()
            };
            table.add_row([
                figure.name.clone(),
                format!("{:.2}", figure.value),
                figure.unit.to_owned(),
                range(|(smallest, _)| smallest),
                range(|(_, largest)| largest),
                figure
                    .goal
                    .map(|goal| format!("{goal:.2}"))
                    .unwrap_or_default(),
                match figure.reached {
                    Some(true) => "reached".to_owned(),
                    Some(false) => "MISSED".to_owned(),
                    None => String::new(),
                },
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{table}");
    }
}
