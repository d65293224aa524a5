//! The clock's ten registers as numbers, and their place on the time line (proleptic Gregorian
//! calendar).

/// Seconds in a day.
pub(super) const DAY: i64 = 86_400;

/// Time and date, in binary and 24-hour form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) second: u8,
    pub(super) minute: u8,
    pub(super) hour: u8,
    /// 1 is Sunday. The chip only counts it; it need not fit the date.
    pub(super) weekday: u8,
    pub(super) day: u8,
    pub(super) month: u8,
    /// Of the century.
    pub(super) year: u8,
    pub(super) century: u8,
}

impl Fields {
    /// The fields at `unix` seconds since 1970. Years 0 to 9999 are represented.
    pub(super) fn at(unix: i64) -> Self {
        let (days, seconds) = (unix.div_euclid(DAY), unix.rem_euclid(DAY));
        let (year, month, day) = civil(days);
        Self {
            second: (seconds % 60) as u8,
            minute: (seconds / 60 % 60) as u8,
            hour: (seconds / 3600) as u8,
            // 1970-01-01 was a Thursday.
            weekday: ((days + 4).rem_euclid(7) + 1) as u8,
            day,
            month,
            year: year.rem_euclid(100) as u8,
            century: year.div_euclid(100).rem_euclid(100) as u8,
        }
    }

    /// Seconds since 1970. Fields out of range carry over.
    pub(super) fn unix(&self) -> i64 {
        let year = i64::from(self.century) * 100 + i64::from(self.year);
        let months = i64::from(self.month.max(1)) - 1;
        let days = days_to(year + months / 12, months % 12 + 1) + i64::from(self.day) - 1;
        let hours = days * 24 + i64::from(self.hour);
        (hours * 60 + i64::from(self.minute)) * 60 + i64::from(self.second)
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of `month`.
fn days_to(year: i64, month: i64) -> i64 {
    // Leap days before the year, counted from year 1; 719162 days lie between 0001-01-01 and
    // 1970-01-01.
    let past = year - 1;
    let leaps = past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400);
    past * 365 + leaps - 719_162 + (1..month).map(|m| month_length(year, m)).sum::<i64>()
}

/// The year, month and day of day `days` since 1970-01-01.
fn civil(days: i64) -> (i64, u8, u8) {
    // A year that is right or one too late, since 146097 days are 400 years.
    let mut year = 1971 + (days * 400).div_euclid(146_097);
    while days_to(year, 1) > days {
        year -= 1;
    }
    let mut rest = days - days_to(year, 1);
    let mut month = 1;
    while month < 12 && rest >= month_length(year, month) {
        rest -= month_length(year, month);
        month += 1;
    }
    (year, month as u8, rest as u8 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days() {
        let fields = |unix| {
            let f = Fields::at(unix);
            (f.century, f.year, f.month, f.day, f.hour, f.minute, f.second, f.weekday)
        };
        assert_eq!(fields(0), (19, 70, 1, 1, 0, 0, 0, 5));
        assert_eq!(fields(951_782_399), (20, 0, 2, 28, 23, 59, 59, 2));
        assert_eq!(fields(951_782_400), (20, 0, 2, 29, 0, 0, 0, 3));
        assert_eq!(fields(1_234_567_890), (20, 9, 2, 13, 23, 31, 30, 6));
        assert_eq!(fields(4_107_542_400), (21, 0, 3, 1, 0, 0, 0, 2));
    }

    proptest! {
        #[test]
        fn to_fields_and_back(unix in -60_000_000_000i64..250_000_000_000) {
            prop_assert_eq!(Fields::at(unix).unix(), unix);
        }
    }
}
