//! How far a copy is, for people.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use super::{super::super::output::printable, Options};

/// Characters of a name beside its bar.
const NAME: usize = 30;

/// A bar on standard error, if that is a terminal and it is wanted.
pub(super) fn bar(options: &Options, name: &str, size: Option<u64>) -> ProgressBar {
    let target = match options.quiet {
        true => ProgressDrawTarget::hidden(),
        // Hidden, too, where standard error is no terminal.
        false => ProgressDrawTarget::stderr(),
    };
    let bar = ProgressBar::with_draw_target(size, target).with_finish(ProgressFinish::AndClear);
    let template = match size {
        Some(_) => "{msg:30} {bar:20} {percent:>3} % {bytes:>11} {bytes_per_sec:>13} {eta:>4}",
        None => "{msg:30} {bytes:>11} {bytes_per_sec:>13} {elapsed:>4}",
    };
    // One that can't be read would be a mistake above; then the usual one does.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let name = printable(name);
    let cut = name.chars().count().saturating_sub(NAME);
    bar.set_message(name.chars().skip(cut).collect::<String>());
    bar
}
