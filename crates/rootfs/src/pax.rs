//! Extended headers: `LENGTH KEY=VALUE\n`, one after the other (POSIX, pax, "pax Extended Header").
//!
//! A record is as long as it says. Values may hold any byte: an attribute such as
//! `security.capability` is binary.

/// The next record's key and value, and what follows it.
pub(crate) fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().position(|&byte| byte == b' ')?;
    let length: usize = number(&text[..space])?.try_into().ok()?;
    let record = text.get(space + 1..length)?;
    let record = record.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &text[length..]))
}

/// A decimal number.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_holds_any_byte() {
        let text = b"11 a=\n=\n x\n7 b=cd\n";
        let (key, value, rest) = record(text).expect("a record");
        assert_eq!((key, value), (&b"a"[..], &b"\n=\n x"[..]));
        assert_eq!(record(rest), Some((&b"b"[..], &b"cd"[..], &b""[..])));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for text in [
            &b""[..],
            b" a=b\n",
            b"99 a=b\n",
            b"6 a=bc\n",
            b"0 a=b\n",
            b"2 a=b\n",
            b"-6 a=b\n",
            b"5 ab\n",
            b"18446744073709551616 a=b\n",
        ] {
            assert_eq!(record(text), None, "{text:?}");
        }
    }
}
