//! Canonical JSON and its digest: the same value is the same bytes wherever it is written.
//!
//! Keys in the order of their characters, no blanks, strings escaped as `serde_json` does, whole numbers only. It
//! is RFC 8785 for what we write; a number with a fraction has no place in a figure and is written as `null`, so
//! that no digest ever depends on how a machine prints a float.

use ring::digest::{SHA256, digest as sha};
use serde_json::Value;

use crate::contract::sealing::Digest;

/// `value` as canonical text.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

/// SHA-256 of the canonical text of `value`.
pub fn digest(value: &Value) -> Digest {
    digest_text(&canonical(value))
}

/// SHA-256 of `text`.
pub fn digest_text(text: &str) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(sha(&SHA256, text.as_bytes()).as_ref());
    Digest(bytes)
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                separate(i, text);
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(value, text);
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for (i, value) in list.iter().enumerate() {
                separate(i, text);
                write(value, text);
            }
            text.push(']');
        }
        Value::Number(number) if number.is_f64() => text.push_str("null"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

fn separate(place: usize, text: &mut String) {
    if place > 0 {
        text.push(',');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn one_value_has_one_text_and_one_digest() {
        let value: Value =
            serde_json::from_str("{ \"b\" : [1, -2, null],\n \"a\": {\"é\": \"\\n\", \"z\": true} }").expect("JSON");
        assert_eq!(canonical(&value), "{\"a\":{\"z\":true,\"é\":\"\\n\"},\"b\":[1,-2,null]}");
        // Of the empty object, by any other program: printf '{}' | sha256sum
        let empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(digest(&json!({})).to_string(), empty);
        assert_eq!(canonical(&json!([0.5])), "[null]");
    }

    proptest! {
        #[test]
        fn canonical_text_reads_back_and_does_not_depend_on_the_order_of_keys(
            entries in prop::collection::btree_map("\\PC{0,4}", any::<i64>(), 0..8),
        ) {
            let forward: serde_json::Map<_, _> = entries.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
            let backward: serde_json::Map<_, _> = entries.iter().rev().map(|(k, v)| (k.clone(), json!(v))).collect();
            let text = canonical(&Value::Object(forward.clone()));
            prop_assert_eq!(&text, &canonical(&Value::Object(backward)));
            prop_assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), Value::Object(forward));
        }
    }
}
