//! Times for people and for logs.

use std::time::SystemTime;

/// RFC 3339 in UTC, to the microsecond: `2026-11-22T18:25:15.000123Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// The day that is `days` after 1970-01-01. Years are counted from March, so that a leap day is the last of its year, and in
/// eras of 400 years, which are all alike.
const fn date(days: u64) -> (u64, u64, u64) {
    const MARCH_0000_TO_1970: u64 = 719_468;
    const ERA: u64 = 146_097;
    let days = days + MARCH_0000_TO_1970;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March on have 30.6 days on average, in a pattern that this division has too.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_what_date_says() {
        // `date -u -d @SECONDS +%FT%TZ`
        for (seconds, micros, text) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 1, "2000-02-28T23:59:59.000001Z"),
            (951_782_400, 999_999, "2000-02-29T00:00:00.999999Z"),
            (951_868_800, 0, "2000-03-01T00:00:00.000000Z"),
            (1_709_210_096, 0, "2024-02-29T12:34:56.000000Z"),
            (1_798_761_599, 0, "2026-12-31T23:59:59.000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, micros * 1000);
            assert_eq!(rfc3339(time), text);
        }
    }
}
