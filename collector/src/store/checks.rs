//! Numbers for checks: given once, never changed, never reused.
//!
//! A sample carries the number instead of the name, and blocks are kept for years; so a check that is
//! removed and comes back under its name gets its old number, and no number ever means two names. 0 is not
//! given: it stands for "every check".

use std::collections::BTreeMap;

use peil_proto::ids::CheckNo;

use super::db::OptionalExtension;
use super::{Store, StoreError};

impl Store {
    /// The numbers of these checks; names not seen before get the next free ones, in order of name.
    ///
    /// # Errors
    /// [`StoreError::NoCheckNumbers`] after 2³² − 1 names, and as every write.
    pub async fn assign_checks(&self, names: Vec<String>) -> Result<BTreeMap<String, CheckNo>, StoreError> {
        self.write("number the checks", move |db| {
            let newest: u32 = db.query_row("SELECT COALESCE(MAX(no), 0) FROM check_name", (), |row| row.get(0))?;
            let mut find = db.prepare_cached("SELECT no FROM check_name WHERE name = ?1")?;
            let mut insert = db.prepare_cached("INSERT INTO check_name (no, name) VALUES (?1, ?2)")?;
            let mut numbers: BTreeMap<String, CheckNo> = names.iter().cloned().map(|name| (name, CheckNo(0))).collect();
            let mut last = newest;
            for (name, number) in &mut numbers {
                let known: Option<u32> = find.query_row([name.as_str()], |row| row.get(0)).optional()?;
                number.0 = match known {
                    Some(no) => no,
                    None => {
                        last = last.checked_add(1).ok_or(StoreError::NoCheckNumbers)?;
                        insert.execute((last, name))?;
                        last
                    }
                };
            }
            Ok(numbers)
        })
        .await
    }

    /// Every check that ever had a number.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn check_names(&self) -> Result<BTreeMap<CheckNo, String>, StoreError> {
        self.read("list the numbers of checks", |db| {
            let mut ask = db.prepare_cached("SELECT no, name FROM check_name")?;
            let rows = ask.query_map((), |row| Ok((CheckNo(row.get(0)?), row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
