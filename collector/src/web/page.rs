//! Pages of a list: so many entries after a key.
//!
//! `next` is the key of the last entry of a page, as JSON in base64url: opaque for whoever gives it back, and safe in a
//! query. The key decides the order, so an entry that is gone by the time its page is asked for does no harm.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::Error;

/// Entries in a page when nobody says.
const DEFAULT: usize = 500;
/// Entries in a page at most; more is refused.
const MAX: usize = 2_000;

/// The entries of a page in order of their key, and where the next page begins.
pub(super) fn of<'a, T, K>(
    entries: impl Iterator<Item = &'a T>,
    key: impl Fn(&T) -> K,
    after: Option<String>,
    limit: Option<String>,
) -> Result<(Vec<&'a T>, Option<String>), Error>
where
    K: Ord + Serialize + DeserializeOwned,
{
    let limit = limit.map_or(Ok(DEFAULT), |word| parse_limit(&word))?;
    let after = after.map(|word| parse_key::<K>(&word)).transpose()?;
    let mut rest: Vec<(K, &T)> = entries
        .map(|entry| (key(entry), entry))
        .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after))
        .collect();
    rest.sort_by(|(one, _), (other, _)| one.cmp(other));
    let next = if rest.len() > limit { rest.get(limit - 1).and_then(|(key, _)| word(key)) } else { None };
    rest.truncate(limit);
    Ok((rest.into_iter().map(|(_, entry)| entry).collect(), next))
}

fn word(key: &impl Serialize) -> Option<String> {
    // Keys are strings and numbers: they can be written.
    serde_json::to_vec(key).ok().map(|json| BASE64_URL_SAFE_NO_PAD.encode(json))
}

fn parse_key<K: DeserializeOwned>(word: &str) -> Result<K, Error> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(word).ok();
    let key = json.and_then(|json| serde_json::from_slice(&json).ok());
    key.ok_or_else(|| Error::invalid("after is the \"next\" of the page before, as it came.".to_owned()))
}

fn parse_limit(word: &str) -> Result<usize, Error> {
    let limit = word.parse().ok().filter(|limit| (1..=MAX).contains(limit));
    limit.ok_or_else(|| Error::invalid(format!("limit is a number from 1 to {MAX}, not {word:?}.")))
}
