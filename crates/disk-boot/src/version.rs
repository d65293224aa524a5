//! Which of two kernels is the newer, by their names.

use std::cmp::Ordering;

/// Compares runs of digits as numbers and the rest as text; `~` is less than nothing, as Debian
/// has it.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (text_a, text_b) = (head(&mut a, false), head(&mut b, false));
        let by_text = ranks(text_a).cmp(ranks(text_b));
        if by_text != Ordering::Equal {
            return by_text;
        }
        let (digits_a, digits_b) = (number(head(&mut a, true)), number(head(&mut b, true)));
        // The longer number is the greater, once it has no zeros in front.
        let by_number = (digits_a.len(), digits_a).cmp(&(digits_b.len(), digits_b));
        if by_number != Ordering::Equal {
            return by_number;
        }
        if a.is_empty() && b.is_empty() {
            return Ordering::Equal;
        }
    }
}

/// Takes off what is of digits at the front of `text`, or of anything else.
fn head<'a>(text: &mut &'a [u8], digits: bool) -> &'a [u8] {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit() == digits).count();
    let (head, rest) = text.split_at(len);
    *text = rest;
    head
}

fn number(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&byte| byte == b'0').count();
    &digits[zeros..]
}

/// Each byte's place in the order, and the end's.
fn ranks(text: &[u8]) -> impl Iterator<Item = u16> {
    let rank = |&byte: &u8| if byte == b'~' { 0 } else { 2 + u16::from(byte) };
    text.iter().map(rank).chain([1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_is_greater() {
        let order = [
            "5.10.0-9-amd64",
            "5.10.0-28-amd64",
            "6.1.0~rc4-amd64",
            "6.1.0-9-amd64",
            "6.1.0-57-amd64",
            "6.12.4",
        ];
        for (n, older) in order.iter().enumerate() {
            assert_eq!(compare(older, older), Ordering::Equal);
            for newer in &order[n + 1..] {
                assert_eq!(compare(older, newer), Ordering::Less, "{older} {newer}");
                assert_eq!(compare(newer, older), Ordering::Greater, "{older} {newer}");
            }
        }
        assert_eq!(compare("6.01", "6.1"), Ordering::Equal);
    }
}
