//! Months that are over: the figure as far as it is known, and the editions that were sealed.
//!
//! An edition is written once, with the data it was made from and an entry in the audit log that holds the SHA-256
//! of its document; there is no way to change one. The figure of a draft is overwritten by whoever computes it
//! again. When a month may be sealed or superseded is decided in `contract/sealing.rs`.
//!
//! Limits: [`MONTHS_READ_MAX`] rows are read at once, the newest months first.

use peil_proto::time::UtcTime;
use ring::digest::{SHA256, digest};

use super::db::Row;
use super::exclusions::Added;
use super::{Store, StoreError, audit, cells, db};

/// Editions or figures one answer has at most.
pub const MONTHS_READ_MAX: u32 = 100_000;

/// A sealed edition without its two long texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditionRow {
    /// Whose.
    pub service: String,
    /// `2026-04`.
    pub month: String,
    /// 1, 2, …
    pub version: u32,
    /// When it was sealed.
    pub sealed_at: UtcTime,
    /// By whom; nobody where the agreed day did.
    pub sealed_by: Option<String>,
    /// Why there is another one; empty for the first.
    pub reason: String,
    /// Who asked for it; empty for the first.
    pub author: String,
    /// Digest of what it was made from.
    pub inputs: [u8; 32],
}

/// The texts of an edition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditionTexts {
    /// The report, canonical JSON.
    pub document: String,
    /// The bundle it was made from.
    pub data: String,
}

/// The figure of a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonthFigureRow {
    /// Whose.
    pub service: String,
    /// `2026-04`.
    pub month: String,
    /// When it was computed.
    pub computed_at: UtcTime,
    /// Digest of what it was made from.
    pub inputs: [u8; 32],
    /// The object of the format, canonical.
    pub figure: String,
}

const COLUMNS: &str = "service, month, version, sealed_at, sealed_by, reason, author, inputs";

impl Store {
    /// Adds an edition; somebody else may have sealed the same version meanwhile.
    ///
    /// # Errors
    /// As every write.
    pub async fn add_edition(&self, row: EditionRow, texts: EditionTexts, who: &str) -> Result<Added, StoreError> {
        let who = who.to_owned();
        self.write("seal a month", move |db| {
            let EditionRow { service, month, version, sealed_at, sealed_by, reason, author, inputs } = &row;
            let mut insert = db.prepare_cached(&format!(
                "INSERT INTO edition ({COLUMNS}, document, data)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING"
            ))?;
            let EditionTexts { document, data } = &texts;
            let head = (service, month, *version, sealed_at.0, sealed_by, reason, author, inputs, document, data);
            if insert.execute(head)? == 0 {
                return Ok(Added::Overtaken);
            }
            let sha256 = hex(digest(&SHA256, document.as_bytes()).as_ref());
            let what = if *version == 1 { "month.seal" } else { "month.supersede" };
            let detail = format!("{service:?} {month} edition {version} sha256 {sha256} {reason}");
            audit::enter(db, *sealed_at, &who, what, detail.trim_end())?;
            Ok(Added::Done)
        })
        .await
    }

    /// Every edition, newest months first, then by service and version.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn editions(&self) -> Result<Vec<EditionRow>, StoreError> {
        self.read("list the sealed months", |db| {
            let mut ask = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM edition ORDER BY month DESC, service, version LIMIT {MONTHS_READ_MAX}"
            ))?;
            let rows = ask.query_map((), edition_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The texts of one edition.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn edition_texts(
        &self,
        service: &str,
        month: &str,
        version: u32,
    ) -> Result<Option<EditionTexts>, StoreError> {
        let (service, month) = (service.to_owned(), month.to_owned());
        self.read("read a sealed month", move |db| {
            let mut ask = db.prepare_cached(
                "SELECT document, data FROM edition WHERE service = ?1 AND month = ?2 AND version = ?3",
            )?;
            let mut rows = ask.query_map((&service, &month, version), |row| {
                Ok(EditionTexts { document: row.get(0)?, data: row.get(1)? })
            })?;
            Ok(rows.next().transpose()?)
        })
        .await
    }

    /// Writes figures of drafts over those there were.
    ///
    /// # Errors
    /// As every write.
    pub async fn put_month_figures(&self, rows: Vec<MonthFigureRow>) -> Result<(), StoreError> {
        self.write("write figures of months", move |db| {
            let mut upsert = db.prepare_cached(
                "INSERT INTO month_figure (service, month, computed_at, inputs, figure) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (service, month) DO UPDATE
                 SET computed_at = excluded.computed_at, inputs = excluded.inputs, figure = excluded.figure",
            )?;
            for MonthFigureRow { service, month, computed_at, inputs, figure } in &rows {
                upsert.execute((service, month, computed_at.0, inputs, figure))?;
            }
            Ok(())
        })
        .await
    }

    /// All figures of drafts, newest months first.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn month_figures(&self) -> Result<Vec<MonthFigureRow>, StoreError> {
        self.read("read the figures of months", |db| {
            let mut ask = db.prepare_cached(&format!(
                "SELECT service, month, computed_at, inputs, figure FROM month_figure
                 ORDER BY month DESC, service LIMIT {MONTHS_READ_MAX}"
            ))?;
            let rows = ask.query_map((), |row| {
                Ok(MonthFigureRow {
                    service: row.get(0)?,
                    month: row.get(1)?,
                    computed_at: cells::time(row, 2)?,
                    inputs: row.get(3)?,
                    figure: row.get(4)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

fn edition_row(row: &Row<'_>) -> db::Result<EditionRow> {
    Ok(EditionRow {
        service: row.get(0)?,
        month: row.get(1)?,
        version: row.get(2)?,
        sealed_at: cells::time(row, 3)?,
        sealed_by: row.get(4)?,
        reason: row.get(5)?,
        author: row.get(6)?,
        inputs: row.get(7)?,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
