//! What every `[[check]]` table has, in the settings of the collector and in `conf.d/` of a host: name, rhythm, deadline,
//! kind.

use super::{CheckDef, CheckKind};
use crate::ids::CheckNo;
use crate::settings::Fields;

/// Characters of a name; a longer one is refused.
const NAME_CHARS_MAX: usize = 128;

impl CheckDef {
    /// Takes a check out of a table; its number is 0 until the collector's store gave it one. Keys of others are left.
    pub fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let name = read_name(fields);
        let interval_ms = read_ms(fields, "interval_s", 1..=86_400, 60);
        let timeout_ms = match fields.peek("timeout_s") {
            Some(_) => read_ms(fields, "timeout_s", 1..=600, 10),
            None => default_timeout_ms(interval_ms),
        };
        let kind = CheckKind::read(fields);
        let def = Self { no: CheckNo(0), name: name?, interval_ms, timeout_ms, kind: kind? };
        for problem in def.problems() {
            fields.refuse(format_args!("is not a check: {problem}"));
        }
        Some(def)
    }
}

/// Takes the required `name` of a table.
pub fn read_name(fields: &mut Fields<'_>) -> Option<String> {
    let name = fields.need_str("name")?;
    if name.is_empty() || name.len() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        fields.refuse("has a name that is empty, over 128 characters or has control characters");
        return None;
    }
    Some(name)
}

/// Ten seconds; half the interval where that would not fit, so that a short rhythm needs no second key.
fn default_timeout_ms(interval_ms: u32) -> u32 {
    const STANDARD: u32 = 10_000;
    if interval_ms > STANDARD { STANDARD } else { interval_ms / 2 }
}

fn read_ms(fields: &mut Fields<'_>, key: &str, range: std::ops::RangeInclusive<i64>, default: i64) -> u32 {
    u32::try_from(fields.int_or(key, range, default) * 1_000).unwrap_or(u32::MAX)
}
