//! Values on their way into a statement and out of a row, the same for both engines.
//!
//! The database has four kinds of cells: nothing, 64-bit integers, text and bytes. Everything the store keeps is one of
//! them, so that both engines keep the same and a database can be copied from one to the other cell by cell.

use std::borrow::Cow;

use bytes::Bytes;

use super::Error;

/// A value on its way into a statement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::store) enum Cell<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
    /// Lists are for statements of PostgreSQL, where one statement writes many rows.
    Ints(&'a [i64]),
    Blobs(&'a [&'a [u8]]),
}

/// What can be put into a statement.
pub(in crate::store) trait ToCell {
    fn cell(&self) -> Cell<'_>;
}

macro_rules! integers {
    ($($kind:ty),*) => {$(
        impl ToCell for $kind {
            fn cell(&self) -> Cell<'_> {
                Cell::Int(i64::from(*self))
            }
        }
    )*};
}
integers!(i64, u32, i32, u16, u8, bool);

/// Text as both engines keep it: PostgreSQL has no sign for NUL, so it becomes U+FFFD in both.
pub(in crate::store) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

impl ToCell for str {
    fn cell(&self) -> Cell<'_> {
        Cell::Text(self)
    }
}

impl ToCell for String {
    fn cell(&self) -> Cell<'_> {
        Cell::Text(self)
    }
}

impl ToCell for [u8] {
    fn cell(&self) -> Cell<'_> {
        Cell::Blob(self)
    }
}

impl ToCell for Vec<u8> {
    fn cell(&self) -> Cell<'_> {
        Cell::Blob(self)
    }
}

impl ToCell for Bytes {
    fn cell(&self) -> Cell<'_> {
        Cell::Blob(self)
    }
}

impl<const N: usize> ToCell for [u8; N] {
    fn cell(&self) -> Cell<'_> {
        Cell::Blob(self)
    }
}

impl ToCell for [i64] {
    fn cell(&self) -> Cell<'_> {
        Cell::Ints(self)
    }
}

impl ToCell for Vec<i64> {
    fn cell(&self) -> Cell<'_> {
        Cell::Ints(self)
    }
}

impl ToCell for Vec<&[u8]> {
    fn cell(&self) -> Cell<'_> {
        Cell::Blobs(self)
    }
}

impl ToCell for Cell<'_> {
    fn cell(&self) -> Cell<'_> {
        *self
    }
}

impl<T: ToCell + ?Sized> ToCell for &T {
    fn cell(&self) -> Cell<'_> {
        (**self).cell()
    }
}

impl<T: ToCell> ToCell for Option<T> {
    fn cell(&self) -> Cell<'_> {
        self.as_ref().map_or(Cell::Null, ToCell::cell)
    }
}

/// The values of a statement, in order: `[…]` of one kind, `(…)` of several.
pub(in crate::store) trait Params {
    fn cells(&self) -> Vec<Cell<'_>>;
}

impl<T: ToCell, const N: usize> Params for [T; N] {
    fn cells(&self) -> Vec<Cell<'_>> {
        self.iter().map(ToCell::cell).collect()
    }
}

/// No values at all.
impl Params for () {
    fn cells(&self) -> Vec<Cell<'_>> {
        Vec::new()
    }
}

impl Params for Vec<Cell<'_>> {
    fn cells(&self) -> Vec<Cell<'_>> {
        self.clone()
    }
}

macro_rules! tuples {
    ($(($($name:ident),*)),*) => {$(
        impl<$($name: ToCell),*> Params for ($($name,)*) {
            fn cells(&self) -> Vec<Cell<'_>> {
                #[expect(non_snake_case, reason = "a type parameter lends each place its name")]
                let ($($name,)*) = self;
                vec![$($name.cell()),*]
            }
        }
    )*};
}
tuples!(
    (A),
    (A, B),
    (A, B, C),
    (A, B, C, D),
    (A, B, C, D, E),
    (A, B, C, D, E, F),
    (A, B, C, D, E, F, G),
    (A, B, C, D, E, F, G, H),
    (A, B, C, D, E, F, G, H, I),
    (A, B, C, D, E, F, G, H, I, J),
    (A, B, C, D, E, F, G, H, I, J, K),
    (A, B, C, D, E, F, G, H, I, J, K, L),
    (A, B, C, D, E, F, G, H, I, J, K, L, M),
    (A, B, C, D, E, F, G, H, I, J, K, L, M, N)
);

/// A value as it stands in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::store) enum Seen<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl<'a> Seen<'a> {
    pub(in crate::store) fn as_str(self) -> Result<&'a str, Error> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(other.is_not("text")),
        }
    }

    pub(in crate::store) fn as_blob(self) -> Result<&'a [u8], Error> {
        match self {
            Self::Blob(bytes) => Ok(bytes),
            other => Err(other.is_not("bytes")),
        }
    }

    fn as_int(self) -> Result<i64, Error> {
        match self {
            Self::Int(value) => Ok(value),
            other => Err(other.is_not("an integer")),
        }
    }

    fn is_not(self, wanted: &str) -> Error {
        let found = match self {
            Self::Null => "nothing",
            Self::Int(_) => "an integer",
            Self::Text(_) => "text",
            Self::Blob(_) => "bytes",
        };
        Error::cell(format!("a cell holds {found} where {wanted} must be"))
    }
}

/// What can be read from a cell.
pub(in crate::store) trait FromCell: Sized {
    fn from_cell(seen: Seen<'_>) -> Result<Self, Error>;
}

impl FromCell for i64 {
    fn from_cell(seen: Seen<'_>) -> Result<Self, Error> {
        seen.as_int()
    }
}

macro_rules! narrow {
    ($($kind:ty),*) => {$(
        impl FromCell for $kind {
            fn from_cell(seen: Seen<'_>) -> Result<Self, Error> {
                let value = seen.as_int()?;
                Self::try_from(value).map_err(|_| Error::cell(format!("{value} does not fit its place")))
            }
        }
    )*};
}
narrow!(u32, i32, u16, usize);

impl FromCell for String {
    fn from_cell(seen: Seen<'_>) -> Result<Self, Error> {
        seen.as_str().map(str::to_owned)
    }
}

impl FromCell for Vec<u8> {
    fn from_cell(seen: Seen<'_>) -> Result<Self, Error> {
        seen.as_blob().map(<[u8]>::to_vec)
    }
}

impl<const N: usize> FromCell for [u8; N] {
    fn from_cell(seen: Seen<'_>) -> Result<Self, Error> {
        let bytes = seen.as_blob()?;
        bytes.try_into().map_err(|_| Error::cell(format!("{} bytes where {N} must be", bytes.len())))
    }
}

impl<T: FromCell> FromCell for Option<T> {
    fn from_cell(seen: Seen<'_>) -> Result<Self, Error> {
        match seen {
            Seen::Null => Ok(None),
            other => T::from_cell(other).map(Some),
        }
    }
}
