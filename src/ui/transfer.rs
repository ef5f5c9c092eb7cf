//! An image on its way: a bar for each layer on a terminal, a line now and then elsewhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Ui, Verbosity, size};

/// How often a line says how far it is, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

const LAYER: &str = "  {prefix:12} {msg:10} {bar:24} {decimal_bytes:>9} of {decimal_total_bytes:<9}";
const ALL: &str = "{spinner} {prefix}: {msg}, {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";

/// How far a layer is; sizes in bytes, as they are transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its turn has not come.
    Waiting,
    /// On its way.
    Receiving {
        /// There already.
        current: u64,
        /// In all; 0 where the engine does not say.
        total: u64,
    },
    /// There: the last that Podman says of it.
    Received,
    /// Being unpacked.
    Unpacking {
        /// Done already.
        current: u64,
        /// In all.
        total: u64,
    },
}

#[derive(Debug, Default)]
struct Layer {
    bar: Option<ProgressBar>,
    received: u64,
    total: u64,
    here: bool,
}

/// A transfer; dropping it takes it off the terminal.
#[derive(Debug)]
pub struct Transfer {
    ui: Ui,
    bars: MultiProgress,
    all: ProgressBar,
    layers: BTreeMap<String, Layer>,
    started: Instant,
    said: Instant,
}

impl Ui {
    /// Shows a transfer of this name.
    pub fn transfer(&self, name: impl Into<String>) -> Transfer {
        let all = ProgressBar::hidden().with_style(style(ALL)).with_prefix(name.into());
        let now = Instant::now();
        Transfer {
            ui: self.clone(),
            bars: self.bars.clone(),
            all,
            layers: BTreeMap::new(),
            started: now,
            said: now,
        }
    }
}

impl Transfer {
    /// A layer is at this phase.
    pub fn layer(&mut self, id: &str, phase: Phase) {
        if self.layers.is_empty() {
            self.all = self.bars.add(std::mem::replace(&mut self.all, ProgressBar::hidden()));
            self.all.enable_steady_tick(Duration::from_millis(120));
        }
        let layer = self.layers.entry(id.to_owned()).or_default();
        let (doing, position) = match phase {
            Phase::Waiting => ("", None),
            Phase::Receiving { current, total } => {
                (layer.received, layer.total) = (current, total.max(current));
                ("receiving", Some((current, total)))
            }
            Phase::Unpacking { current, total } => {
                layer.received = layer.total;
                ("unpacking", Some((current, total)))
            }
            Phase::Received => {
                layer.received = layer.total;
                layer.here = true;
                ("", None)
            }
        };
        if let Some((current, total)) = position.filter(|(_, total)| *total > 0) {
            let bar = layer.bar.get_or_insert_with(|| {
                let bar = ProgressBar::hidden().with_style(style(LAYER)).with_prefix(id.to_owned());
                self.bars.insert_before(&self.all, bar)
            });
            bar.set_message(doing);
            bar.set_length(total);
            bar.set_position(current);
        } else if let Some(bar) = layer.bar.take() {
            bar.finish_and_clear();
        }
        let (received, total) = self.bytes();
        self.all.set_length(total);
        self.all.set_position(received);
        self.all.set_message(self.counted());
        if self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            if !self.ui.shows_bars() {
                self.ui.status(format!("  {}, {}", self.counted(), self.rate()));
            }
        }
    }

    /// Whether every layer that was told of is there.
    pub fn is_complete(&self) -> bool {
        !self.layers.is_empty() && self.layers.values().all(|layer| layer.here)
    }

    /// `12 layers, 230 MB in 8 s`.
    pub fn summary(&self) -> String {
        let count = self.layers.len();
        let layers = if count == 1 { "layer" } else { "layers" };
        format!("{count} {layers}, {}", self.rate())
    }

    fn counted(&self) -> String {
        let here = self.layers.values().filter(|layer| layer.here).count();
        format!("{here} of {} layers", self.layers.len())
    }

    fn rate(&self) -> String {
        let (received, _) = self.bytes();
        let seconds = self.started.elapsed().as_secs_f64();
        let signed = |bytes: f64| size(bytes as i64);
        match received {
            // Podman's engine does not say.
            0 => format!("{seconds:.0} s"),
            bytes => {
                let bytes = bytes as f64;
                format!("{} in {seconds:.0} s, {}/s", signed(bytes), signed(bytes / seconds.max(0.001)))
            }
        }
    }

    fn bytes(&self) -> (u64, u64) {
        self.layers
            .values()
            .fold((0, 0), |(received, total), layer| (received + layer.received, total + layer.total))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let bars = self.layers.values_mut().filter_map(|layer| layer.bar.take());
        bars.for_each(|bar| bar.finish_and_clear());
        self.all.finish_and_clear();
    }
}

impl Ui {
    fn shows_bars(&self) -> bool {
        self.terminal && self.verbosity == Verbosity::Normal
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_templates() {
        for template in [LAYER, ALL] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }

    #[test]
    fn layers_are_counted_and_added_up() {
        let mut transfer = Ui::new(Verbosity::Quiet, true).transfer("x");
        transfer.layer("a", Phase::Waiting);
        transfer.layer("b", Phase::Receiving { current: 10, total: 100 });
        transfer.layer("c", Phase::Received);
        assert_eq!((transfer.counted().as_str(), transfer.bytes()), ("1 of 3 layers", (10, 100)));
        transfer.layer("b", Phase::Received);
        transfer.layer("a", Phase::Receiving { current: 5, total: 0 });
        assert_eq!(transfer.bytes(), (105, 105));
        transfer.layer("b", Phase::Unpacking { current: 1, total: 9 });
        assert_eq!((transfer.counted().as_str(), transfer.bytes()), ("2 of 3 layers", (105, 105)));
        assert!(transfer.summary().starts_with("3 layers, 105 B in 0 s, "));
    }
}
