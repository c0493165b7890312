//! Output of a Nagios plug-in: `TEXT | 'label'=VALUE[UNIT];warn;crit;min;max …`. The bytes are a stranger's: what is not
//! performance data is left out, and what follows it is still read.

/// Values taken from one output. Further ones are left out.
const VALUES_MAX: usize = 32;
/// Characters of a label.
const LABEL_CHARS_MAX: usize = 64;

/// One value, as it was printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Its label.
    pub label: String,
    /// Digits with sign and decimal point.
    pub value: String,
    /// Letters or `%` behind it.
    pub unit: String,
}

/// The first line for people, and the values of the first line.
pub fn split(output: &str) -> (&str, Vec<Value>) {
    let line = output.lines().next().unwrap_or_default();
    let (text, data) = line.split_once('|').unwrap_or((line, ""));
    (text.trim(), values(data))
}

fn values(data: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut rest = data.trim_start();
    while !rest.is_empty() && found.len() < VALUES_MAX {
        let (label, after) = label(rest);
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let (word, behind) = after.split_at(end);
        found.extend(word.strip_prefix('=').and_then(|word| value(label, word)));
        rest = behind.trim_start();
    }
    found
}

/// A label in quotes (two of them stand for one) or up to `=` or a blank.
fn label(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('\'') else {
        let end = text.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut label = String::new();
    let mut rest = quoted;
    while let Some((before, after)) = rest.split_once('\'') {
        label.push_str(before);
        match after.strip_prefix('\'') {
            Some(more) => {
                label.push('\'');
                rest = more;
            }
            None => return (label, after),
        }
    }
    (label + rest, "")
}

fn value(label: String, word: &str) -> Option<Value> {
    let number = word.split(';').next()?;
    let end = number.find(|c: char| !(c.is_ascii_digit() || ".-+".contains(c))).unwrap_or(number.len());
    let (value, unit) = number.split_at(end);
    let good = value.parse::<f64>().is_ok() && unit.chars().all(|c| c.is_ascii_alphabetic() || c == '%');
    let label: String = label.chars().filter(|c| !c.is_control()).take(LABEL_CHARS_MAX).collect();
    (good && !label.is_empty()).then(|| Value { label, value: value.to_owned(), unit: unit.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> Vec<(String, String, String)> {
        split(output).1.into_iter().map(|value| (value.label, value.value, value.unit)).collect()
    }

    #[test]
    fn text_and_values_are_told_apart_as_the_plug_in_guidelines_say() {
        let output = "DISK OK - free: 3326 MB (56%); | /=2643MB;5948;5958;0;5968 'a ''b'' c'=-1.5% U=U x\nmore | y=1\n";
        assert_eq!(split(output).0, "DISK OK - free: 3326 MB (56%);");
        let expected = [("/", "2643", "MB"), ("a 'b' c", "-1.5", "%")];
        assert_eq!(read(output), expected.map(|(a, b, c)| (a.into(), b.into(), c.into())));
        assert_eq!(split("").1, []);
        assert_eq!(read(&format!("x|{}", "a=1 ".repeat(100))).len(), VALUES_MAX);
    }

    proptest::proptest! {
        #[test]
        fn any_output_is_read(output in "(?s).{0,200}", data in "['a-c=0-9.;% |-]{0,80}") {
            let _ = split(&output);
            let (_, values) = split(&format!("x|{data}"));
            proptest::prop_assert!(values.len() <= VALUES_MAX);
        }
    }
}
