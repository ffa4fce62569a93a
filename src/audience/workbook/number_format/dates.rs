//! Dates and times of day.

use super::DateSystem;
use super::section::{Kind, Part, Piece, Section};

const DAY: f64 = 86_400.0;
/// The day after 31 December 9999, the last that spreadsheets know.
const TOO_LATE: f64 = 2_958_466.0;
/// An elapsed time of more days than this is shown as a number.
const MOST_DAYS: f64 = 1e8;
/// How much later the days of the 1904 system are.
const SYSTEM_1904: i64 = 1462;
/// A time is kept as a part of a day, and most times have no exact one. One that lacks less than half a
/// millisecond to the next second is that second, so that 9:30 is not shown as 9:29.
const NEARLY_A_SECOND: f64 = 0.9995;

/// A day and a time of it.
struct Moment {
    day: i64,
    /// Whole seconds of the day, or of the whole time if that is elapsed.
    seconds: u64,
    /// The rest of a second.
    rest: f64,
}

impl Moment {
    fn of_date(value: f64, dates: DateSystem) -> Option<Self> {
        let offset = if dates == DateSystem::From1904 { SYSTEM_1904 } else { 0 };
        if !(0.0..TOO_LATE - offset as f64).contains(&value) {
            return None;
        }
        let mut day = value.floor() as i64;
        let seconds = value.fract() * DAY;
        let nearly = seconds.fract() > NEARLY_A_SECOND;
        let rest = if nearly { 0.0 } else { seconds.fract() };
        let mut seconds = seconds.floor() as u64 + u64::from(nearly);
        if seconds >= 86_400 {
            seconds = 0;
            day += 1;
        }
        Some(Self { day: day + offset, seconds, rest })
    }

    /// An elapsed time is rounded to what is shown of it.
    fn of_elapsed(value: f64, dates: DateSystem, digits: usize) -> Option<Self> {
        if value > MOST_DAYS {
            return None;
        }
        let offset = if dates == DateSystem::From1904 { SYSTEM_1904 } else { 0 };
        let unit = 10_f64.powi(i32::try_from(digits).unwrap_or(0));
        let seconds = (value * DAY * unit).round() / unit;
        Some(Self {
            day: value.floor() as i64 + offset,
            seconds: seconds.floor() as u64,
            rest: seconds.fract(),
        })
    }

    /// Year, month and day of the month.
    fn date(&self) -> (i64, usize, i64) {
        match self.day {
            // Spreadsheets show a day before the first, and a leap day that 1900 did not have.
            0 => (1900, 1, 0),
            60 => (1900, 2, 29),
            day => gregorian(if day < 60 { day + 1 } else { day }),
        }
    }

    fn weekday(&self) -> usize {
        usize::try_from((self.day + 6).rem_euclid(7)).unwrap_or(0)
    }
}

/// The date of a day that is counted from 30 December 1899.
fn gregorian(day: i64) -> (i64, usize, i64) {
    const CENTURIES: i64 = 146_097;
    // Counted from 1 March 1600, so that leap days come last in their year, century and four centuries.
    let mut rest = day + 109_511;
    let mut year = 1600 + 400 * rest.div_euclid(CENTURIES);
    rest = rest.rem_euclid(CENTURIES);
    let centuries = (rest / 36_524).min(3);
    rest -= centuries * 36_524;
    let fours = rest / 1461;
    rest -= fours * 1461;
    let years = (rest / 365).min(3);
    rest -= years * 365;
    year += 100 * centuries + 4 * fours + years;
    let mut month = 3;
    for length in [31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31] {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    if month > 12 { (year + 1, month - 12, rest + 1) } else { (year, month, rest + 1) }
}

/// Formats a number as a date or a time; `None` if it is neither.
pub(super) fn print(section: &Section, value: f64, dates: DateSystem) -> Option<String> {
    let parts = || {
        section.pieces.iter().filter_map(|p| if let Piece::Date(a, b) = p { Some((*a, *b)) } else { None })
    };
    let digits = parts().filter(|part| part.0 == Part::SubSecond).map(|part| part.1).max().unwrap_or(0);
    let moment = if section.kind == Kind::Elapsed {
        Moment::of_elapsed(value, dates, digits)?
    } else {
        Moment::of_date(value, dates)?
    };
    let half_days = parts().any(|part| matches!(part.0, Part::HalfDay | Part::HalfDayLetter));
    let mut shown = String::new();
    for piece in &section.pieces {
        match piece {
            Piece::Literal(literal) => shown.push(*literal),
            Piece::Date(part, width) => {
                shown.push_str(&print_part(section, &moment, *part, *width, half_days));
            }
            _ => (),
        }
    }
    Some(shown)
}

fn print_part(section: &Section, moment: &Moment, part: Part, width: usize, half_days: bool) -> String {
    let (year, month, day) = moment.date();
    let language = section.language;
    let name = |names: &str, at: usize| names.split('|').nth(at).unwrap_or_default().to_owned();
    let hour = moment.seconds / 3600 % 24;
    let two = width.min(2);
    match part {
        Part::Year if width <= 2 => format!("{:02}", year % 100),
        Part::Year => format!("{year:04}"),
        Part::Month => match width {
            1 | 2 => format!("{month:0width$}"),
            3 => name(language.short_months, month - 1),
            5 => language
                .months
                .split('|')
                .nth(month - 1)
                .and_then(|name| name.chars().next())
                .into_iter()
                .collect(),
            _ => name(language.months, month - 1),
        },
        Part::Day => match width {
            1 | 2 => format!("{day:0width$}"),
            3 => name(language.short_days, moment.weekday()),
            _ => name(language.days, moment.weekday()),
        },
        Part::Hour => {
            let shown = if half_days { (hour + 11) % 12 + 1 } else { hour };
            format!("{shown:0two$}")
        }
        Part::Minute => format!("{:0two$}", moment.seconds / 60 % 60),
        Part::Second => format!("{:0two$}", moment.seconds % 60),
        Part::SubSecond => {
            // Never up to a whole second, which is shown already.
            let unit = 10_u64.pow(u32::try_from(width).unwrap_or(0));
            let digits = ((moment.rest * unit as f64).round() as u64).min(unit.saturating_sub(1));
            format!("{}{digits:0width$}", section.marks.point)
        }
        Part::ElapsedHours => format!("{:0width$}", moment.seconds / 3600),
        Part::ElapsedMinutes => format!("{:0width$}", moment.seconds / 60),
        Part::ElapsedSeconds => format!("{:0width$}", moment.seconds),
        Part::HalfDay => name(language.half_days, usize::from(hour >= 12)),
        Part::HalfDayLetter => match (hour >= 12, width) {
            (false, 0) => "a",
            (false, _) => "A",
            (true, 0) => "p",
            (true, _) => "P",
        }
        .to_owned(),
    }
}
