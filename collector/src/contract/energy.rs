//! Energy by the clock: a reading's microjoules split over UTC hours, to the microjoule.
//!
//! Within a reading energy is taken as spread evenly. The shares are differences of floored running sums,
//! so they add up to the reading exactly, whatever its length.

use std::collections::BTreeMap;

use peil_proto::record::{Boundary, EnergyReading, Method};
use peil_proto::time::UtcTime;
use peil_proto::units::{Microjoules, Millis};

/// Longest reading that is split; a longer one is a fault of its agent and counts nowhere.
pub const READING_MAX: Millis = Millis(31 * Millis::DAY.0);

/// Energy of one source in one UTC hour.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HourEnergy {
    /// Best figure.
    pub energy: Microjoules,
    /// Lower bound.
    pub low: Microjoules,
    /// Upper bound.
    pub high: Microjoules,
    /// Time of the hour that readings cover; the rest is missing, not zero.
    pub covered: Millis,
    /// Part of it the host was awake.
    pub active: Millis,
    /// The weakest method among the readings.
    pub method: Method,
    /// Of the newest reading.
    pub boundary: Boundary,
    /// Of the newest reading.
    pub covers: String,
    /// End of the newest reading.
    newest: UtcTime,
}

/// Adds a reading to its hours and returns the hours it touched.
pub fn add(hours: &mut BTreeMap<(UtcTime, String), HourEnergy>, reading: &EnergyReading) -> Vec<UtcTime> {
    let length = reading.end.since(reading.start);
    if length <= Millis::ZERO || length > READING_MAX {
        return Vec::new();
    }
    let mut touched = Vec::new();
    let mut from = reading.start;
    while from < reading.end {
        let hour = from.hour_start();
        let to = hour.plus(Millis::HOUR).min(reading.end);
        let share = |whole: Microjoules| {
            let upto = |t: UtcTime| portion(whole, t.since(reading.start), length);
            Microjoules(upto(to).saturating_sub(upto(from)))
        };
        let entry = hours.entry((hour, reading.source.clone())).or_insert_with(|| HourEnergy {
            method: reading.method,
            newest: UtcTime(i64::MIN),
            ..HourEnergy::default()
        });
        entry.energy = entry.energy.saturating_add(share(reading.energy));
        entry.low = entry.low.saturating_add(share(reading.low));
        entry.high = entry.high.saturating_add(share(reading.high));
        entry.covered = entry.covered.saturating_add(to.since(from));
        let active = Microjoules(reading.active.0.max(0).unsigned_abs());
        entry.active = entry.active.saturating_add(Millis(i64::try_from(share(active).0).unwrap_or(0)));
        entry.method = entry.method.max(reading.method);
        // Newest by its own time, not by arrival; a tie is broken by content, so that any order gives the same.
        let told = (reading.end, reading.boundary, &reading.covers);
        if told > (entry.newest, entry.boundary, &entry.covers) {
            entry.newest = reading.end;
            entry.boundary = reading.boundary;
            entry.covers.clone_from(&reading.covers);
        }
        touched.push(hour);
        from = to;
    }
    touched
}

/// `floor(whole × part / length)` without overflow.
fn portion(whole: Microjoules, part: Millis, length: Millis) -> u64 {
    let product = u128::from(whole.0) * u128::from(part.0.max(0).unsigned_abs());
    u64::try_from(product / u128::from(length.0.max(1).unsigned_abs())).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reading(start: i64, end: i64, energy: u64) -> EnergyReading {
        let uj = Microjoules(energy);
        EnergyReading {
            source: "rapl".into(),
            start: UtcTime(start),
            end: UtcTime(end),
            energy: uj,
            low: uj,
            high: uj,
            ..EnergyReading::default()
        }
    }

    #[test]
    fn two_kilojoules_over_the_hour_are_one_and_one() {
        let mut hours = BTreeMap::new();
        let hour = Millis::HOUR.0;
        assert_eq!(add(&mut hours, &reading(hour - 10_000, hour + 10_000, 2_000_000_000)).len(), 2);
        let energies: Vec<_> = hours.values().map(|hour| hour.energy.0).collect();
        assert_eq!(energies, [1_000_000_000, 1_000_000_000]);
    }

    proptest! {
        #[test]
        fn no_microjoule_is_lost_or_made(start in 0..10_000_000_i64, length in 1..100_000_000_i64, energy: u64) {
            let mut hours = BTreeMap::new();
            add(&mut hours, &reading(start, start + length, energy));
            prop_assert_eq!(hours.values().map(|hour| u128::from(hour.energy.0)).sum::<u128>(), u128::from(energy));
            prop_assert_eq!(hours.values().map(|hour| hour.covered.0).sum::<i64>(), length);
        }
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_changes_nothing(
            parts in prop::collection::vec((0..20_i64, 1..20_i64, 0..1_000_u64, 0..3_usize), 1..12),
            seed in any::<u64>(),
        ) {
            const METHODS: [Method; 3] = [Method::Measured, Method::Estimated, Method::Modelled];
            const BOUNDARIES: [Boundary; 3] = [Boundary::Component, Boundary::Platform, Boundary::Wall];
            let quarter = Millis::HOUR.0 / 4;
            let readings: Vec<_> = parts.iter().map(|(start, length, energy, kind)| EnergyReading {
                method: METHODS[*kind],
                boundary: BOUNDARIES[*kind],
                covers: format!("part {kind}"),
                ..reading(start * quarter, (start + length) * quarter, *energy)
            }).collect();
            let mut shuffled = readings.clone();
            shuffled.sort_by_key(|reading| (reading.energy.0 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let [mut one, mut other] = [BTreeMap::new(), BTreeMap::new()];
            for reading in &readings { add(&mut one, reading); }
            for reading in &shuffled { add(&mut other, reading); }
            prop_assert_eq!(one, other);
        }
    }
}
