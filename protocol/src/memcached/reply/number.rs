//! Decimal digits without the formatting machinery.

/// The most digits of a 64-bit number.
const DIGITS_MAX: usize = 20;

const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut index = 0;
    while index < pairs.len() {
        pairs[index] = [b'0' + (index / 10) as u8, b'0' + (index % 10) as u8];
        index += 1;
    }
    pairs
};

/// Appends `number` in decimal.
#[inline]
pub fn put_decimal(out: &mut Vec<u8>, number: u64) {
    if number < 10 {
        out.push(b'0' + number as u8);
        return;
    }
    let mut digits = [0; DIGITS_MAX];
    let mut start = DIGITS_MAX;
    let mut left = number;
    while left >= 10 {
        start -= 2;
        digits[start..start + 2].copy_from_slice(&PAIRS[(left % 100) as usize]);
        left /= 100;
    }
    if left > 0 {
        start -= 1;
        digits[start] = b'0' + left as u8;
    }
    out.extend_from_slice(&digits[start..]);
}

/// How many digits `number` has in decimal.
pub(super) fn decimal_digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(number: u64) {
        let mut out = b"x".to_vec();
        put_decimal(&mut out, number);
        assert_eq!(out, format!("x{number}").into_bytes());
        assert_eq!(decimal_digits(number), out.len() - 1);
    }

    #[test]
    fn the_edges_of_every_length_are_written() {
        check(0);
        check(u64::MAX);
        for power in 0..20 {
            let number = 10u64.pow(power);
            check(number);
            check(number - 1);
            check(number + 1);
        }
    }

    proptest! {
        #[test]
        fn any_number_is_written(number: u64, shift in 0..64) {
            check(number >> shift);
        }
    }
}
