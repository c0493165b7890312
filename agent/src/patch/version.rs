//! Compares Debian version numbers by the rules of `dpkg --compare-versions`, without allocating.
//!
//! A version is `[epoch:]upstream[-revision]`. Each part is compared as alternating runs of non-digits
//! and digits; `~` sorts before everything, even the end of the part, and letters before other marks. A
//! part that is absent equals `0`.
//!
//! Works on any bytes and never fails: what is not a valid version still has a place in one total order,
//! so that a damaged list cannot make the candidate depend on the order of reading. Source:
//! deb-version(7) and dpkg's `lib/dpkg/version.c`.

use std::cmp::Ordering;

/// The order of two versions; `Equal` also for spellings that mean the same (`1.0` and `1.0-0`).
pub(crate) fn compare(left: &[u8], right: &[u8]) -> Ordering {
    let (left, right) = (Parts::of(left), Parts::of(right));
    compare_part(left.epoch, right.epoch)
        .then_with(|| compare_part(left.upstream, right.upstream))
        .then_with(|| compare_part(left.revision, right.revision))
}

struct Parts<'a> {
    epoch: &'a [u8],
    upstream: &'a [u8],
    revision: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(version: &'a [u8]) -> Self {
        let version = version.trim_ascii();
        let (epoch, rest) = match version.iter().position(|&b| b == b':') {
            Some(at) => (&version[..at], &version[at + 1..]),
            None => (&version[..0], version),
        };
        match rest.iter().rposition(|&b| b == b'-') {
            Some(at) => Self { epoch, upstream: &rest[..at], revision: &rest[at + 1..] },
            None => Self { epoch, upstream: rest, revision: &rest[..0] },
        }
    }
}

/// dpkg's `verrevcmp`.
fn compare_part(mut left: &[u8], mut right: &[u8]) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        while at_non_digit(left) || at_non_digit(right) {
            let order = weight(left).cmp(&weight(right));
            if order.is_ne() {
                return order;
            }
            (left, right) = (after_first(left), after_first(right));
        }
        let (left_digits, left_rest) = number(left);
        let (right_digits, right_rest) = number(right);
        let order = left_digits.len().cmp(&right_digits.len()).then_with(|| left_digits.cmp(right_digits));
        if order.is_ne() {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

fn at_non_digit(text: &[u8]) -> bool {
    text.first().is_some_and(|b| !b.is_ascii_digit())
}

fn after_first(text: &[u8]) -> &[u8] {
    text.get(1..).unwrap_or_default()
}

/// The place of the next byte: `~`, then the end or a digit, then letters, then everything else.
fn weight(text: &[u8]) -> i32 {
    match text.first() {
        None => 0,
        Some(b) if b.is_ascii_digit() => 0,
        Some(b'~') => -1,
        Some(&b) if b.is_ascii_alphabetic() => i32::from(b),
        Some(&b) => i32::from(b) + 256,
    }
}

/// A run of digits without its leading zeros (so that length decides), and what follows it.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let zeros = digits.iter().take_while(|&&b| b == b'0').count();
    (&digits[zeros..], rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn versions_order_as_debian_policy_says() {
        // Each line ascends.
        let ladders = [
            "1.0~~ 1.0~~a 1.0~ 1.0 1.0a 1.0+ 1.0.1 1.1 1:0.1 1:0.2 2:0",
            "1.0-1 1.0-1+b1 1.0-1+b2 1.0-1+deb12u1 1.0-1+deb12u9 1.0-1+deb12u10 1.0-2 1.0-10",
            "1:9.2p1-2+deb12u6 1:9.2p1-2+deb12u9 1:9.2p1-2+deb12u10 1:9.2p1-2.1",
            "6.1.99-1 6.1.100-1 6.1.192-2 6.10.1-1~bpo12+1 6.10.1-1",
            "20230311+deb12u1 20250419~deb12u1 20250419~deb12u2 20250419",
            "1.2-3-1 1.2-3-2 1.2.0-1",
            "99999999999999999999999999 100000000000000000000000000",
        ];
        for ladder in ladders {
            let steps: Vec<&str> = ladder.split(' ').collect();
            for (i, low) in steps.iter().enumerate() {
                for (j, high) in steps.iter().enumerate() {
                    assert_eq!(compare(low.as_bytes(), high.as_bytes()), i.cmp(&j), "{low} against {high}");
                }
            }
        }
    }

    #[test]
    fn spellings_of_one_version_are_equal() {
        for (a, b) in
            [("1.0", "1.0-0"), ("0:1.0", "1.0"), ("1.00", "1.0"), ("1.01-01", "1.1-1"), ("", "0"), ("00:1", "1")]
        {
            assert_eq!(compare(a.as_bytes(), b.as_bytes()), Ordering::Equal, "{a} and {b}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_stand_in_one_total_order(
            a in "[0-9a-z.+~:-]{0,8}", b in "[0-9a-z.+~:-]{0,8}", c in proptest::collection::vec(any::<u8>(), 0..8)
        ) {
            let (a, b) = (a.as_bytes(), b.as_bytes());
            prop_assert_eq!(compare(a, a), Ordering::Equal);
            prop_assert_eq!(compare(a, b), compare(b, a).reverse());
            let mut three = [a, b, &c[..]];
            three.sort_by(|x, y| compare(x, y));
            prop_assert_ne!(compare(three[0], three[2]), Ordering::Greater);
        }
    }

    /// A linear congruential generator: the pairs differ from each other, not from run to run.
    fn version(seed: &mut u64) -> String {
        let mut below = |n: u64| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((*seed >> 33) % n).unwrap()
        };
        let pieces = ["0", "1", "2", "9", "10", "01", "a", "b", ".", "+", "~", "+b1", "+deb12u", "rc"];
        let mut text = ["", "", "1:", "0:"][below(4)].to_owned();
        text.push_str(["0", "1", "2"][below(3)]);
        for _ in 0..below(4) {
            text.push_str(pieces[below(14)]);
        }
        if below(2) == 0 {
            text.push('-');
            text.push_str(["0", "1", "2", "10"][below(4)]);
            for _ in 0..below(3) {
                text.push_str(pieces[below(14)]);
            }
        }
        text
    }

    #[test]
    fn dpkg_itself_agrees_on_hundreds_of_pairs() {
        if Command::new("dpkg").arg("--version").output().is_err() {
            println!("skipped: no dpkg on this machine to compare with");
            return;
        }
        let mut seed = 20_261_123;
        for _ in 0..300 {
            let (a, b) = (version(&mut seed), version(&mut seed));
            let says = |relation| {
                let run = Command::new("dpkg").args(["--compare-versions", &a, relation, &b]).output().unwrap();
                assert!(
                    run.stderr.is_empty(),
                    "dpkg does not take {a} or {b}: {}",
                    String::from_utf8_lossy(&run.stderr)
                );
                run.status.success()
            };
            let ours = compare(a.as_bytes(), b.as_bytes());
            assert_eq!(says("lt"), ours.is_lt(), "{a} lt {b}");
            assert_eq!(says("eq"), ours.is_eq(), "{a} eq {b}");
        }
    }
}
